"""`python -m bench.air`: air and S3 side by side, over one server and in the same repetition.

    python -m bench.air --drives 7 --code 4+3 --connections 1,10,50 --repeat 3

Every put makes a new name. `hey` puts one and the same: what its figures of puts say is how writers of one name queue.
"""

import argparse
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random

from bench.load import header, line
from bench.loop import Request
from bench.rows import (
    LARGE_VERIFIED_ONE_IN,
    SMALL_MAX_BYTES,
    SMALL_VERIFIED_ONE_IN,
    Contents,
    Row,
    Sources,
    Target,
    fill,
    object_path,
    objects_count,
    puts,
    reads,
)
from bench.run import make_bucket, prepare, run
from holdfast.core.limits import KIB, MIB
from holdfast.testing.server import Server, free_port

SIZES = {"4k": 4 * KIB, "1m": MIB}
_BOUNDARY = b"a-boundary-of-no-body"
_BEFORE = b'--%s\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n' % _BOUNDARY
_AFTER = b"\r\n--%s--\r\n" % _BOUNDARY


def _head(target: Target, call: str, verb: str, size: int, number: int, headers: bytes = b"") -> bytes:
    path = f"/{verb}{object_path(target, size, number)}"
    return f"{call} {path} HTTP/1.1\r\nHost: {target.host}\r\n".encode() + headers + b"\r\n"


def air_puts(size: int) -> Sources:
    """New names, one after the other."""

    def sources(target: Target, connection: int, connections: int) -> Iterator[Request]:
        contents = Contents(size)
        length = len(_BEFORE) + size + len(_AFTER)
        headers = b"Content-Type: multipart/form-data; boundary=%s\r\nContent-Length: %d\r\n" % (_BOUNDARY, length)
        ring = [contents.body(number) for number in range(2)] if size > SMALL_MAX_BYTES else None
        for turn in itertools.count():
            number = connection + turn * connections
            data = ring[turn % 2] if ring else contents.body(number)
            head = _head(target, "POST", "put", size, number, headers) + _BEFORE
            yield Request([head + data + _AFTER] if ring is None else [head, data, _AFTER], transferred=size)

    return sources


def air_reads(size: int) -> Sources:
    """What `fill` put through S3, in random order."""

    def sources(target: Target, connection: int, connections: int) -> Iterator[Request]:
        contents = Contents(size)
        numbers = list(range(connection, objects_count(size), connections)) or [connection % objects_count(size)]
        Random(connection).shuffle(numbers)
        one_in = SMALL_VERIFIED_ONE_IN if size <= SMALL_MAX_BYTES else LARGE_VERIFIED_ONE_IN
        for turn, number in enumerate(itertools.cycle(numbers), connection):
            expected = (lambda number=number: contents.body(number)) if turn % one_in == 0 else None
            yield Request([_head(target, "GET", "get", size, number)], expected=expected, transferred=size)

    return sources


def pairs(name: str, size: int, connections: int) -> list[tuple[str, Row, Row]]:
    """A put and a get of one size: S3's row and air's."""
    unit = "objects/s" if size <= SMALL_MAX_BYTES else "MiB/s"
    found = []
    for verb, s3, air in (("put", puts(size), air_puts(size)), ("get", reads("GET", size), air_reads(size))):
        row = f"{verb}-{name} x{connections}"
        found.append((verb, Row(row, connections, unit, s3), Row(row, connections, unit, air)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drives", type=int, default=7)
    parser.add_argument("--code", default="4+3")
    parser.add_argument("--connections", default="1,10,50")
    parser.add_argument("--sizes", default="4k,1m")
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--workers", type=int, default=2, help="of the server")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="bench-air-"))
    port = free_port()
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, home, ignore_errors=True)
        drives = [home / str(number) for number in range(1, arguments.drives + 1)]
        options = ("--code", arguments.code, "--air", str(port))
        server = stack.enter_context(Server(drives, home / "log", workers=arguments.workers, options=options))
        s3 = Target(server.address, server.signer, "unsigned")
        make_bucket(s3)
        print(header())
        for connections, name in itertools.product(
            map(int, arguments.connections.split(",")), arguments.sizes.split(",")
        ):
            size = SIZES[name]
            for verb, *rows in pairs(name, size, connections):
                for turn in range(arguments.repeat):
                    target = replace(s3, run=f"{verb}-{name}-{connections}-{turn}")
                    if verb == "get":
                        prepare(target, fill(size))
                    # Air puts names of its own, and reads what S3 reads.
                    theirs = replace(target, address=("127.0.0.1", port))
                    theirs = theirs if verb == "get" else replace(theirs, run=f"{target.run}-air")
                    measured = [("s3", target, rows[0]), ("air", theirs, rows[1])]
                    for who, where, row in measured[:: 1 if turn % 2 == 0 else -1]:
                        print(line(who, run(where, row, pid=server.pid, length=arguments.seconds)), flush=True)


if __name__ == "__main__":
    main()
