"""Durable when answered, as the kernel saw it: before every success the bytes were written and fdatasync had returned.

The server runs under strace. For each request the trace says when it came, when the answer left, and what was written
and synced between. A drive counts when every write that the request made to it was followed by an fdatasync that
began after the write and ended before the answer was sent. What strace does not see (writes through a ring or a
mapping) does not count, so a proof that became blind fails.
"""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from holdfast.core.limits import KIB
from holdfast.testing.s3_client import S3Client
from holdfast.testing.server import Server
from tests.integration.conftest import make_directories

CALLS = "pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,recvfrom,fsync,fdatasync"

_CALL = re.compile(r"^(\d+\.\d+) (\w+)\(\d+<(.*?)>(.*)<(\d+\.\d+)>$")


@dataclass(frozen=True, slots=True)
class Call:
    process: int
    began: float
    ended: float
    name: str
    path: str
    rest: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request, and what happened on the drives before its answer left."""

    line: str
    status: int
    durable: dict[str, set[str]]
    """Kind of file ("segments", "meta") to the drives on which all was synced in time."""
    touched: dict[str, set[str]]
    """The same for drives that were written to at all."""


def threads_of(server: Server) -> dict[int, int]:
    """The process of every thread that is there now."""
    return {
        int(task.name): process.pid
        for process in server.processes()
        for task in Path(f"/proc/{process.pid}/task").iterdir()
    }


def read_calls(folder: Path, process_of: Mapping[int, int]) -> list[Call]:
    """Every call of every thread, by start. A file a thread, so no call is printed in two pieces."""
    calls = []
    for path in folder.glob("trace.*"):
        process = process_of.get(int(path.suffix[1:]), 0)
        for line in path.read_text(errors="replace").splitlines():
            if match := _CALL.match(line):
                began, name, file, rest, took = match.groups()
                calls.append(Call(process, float(began), float(began) + float(took), name, file, rest))
    return sorted(calls, key=lambda call: call.began)


def exchanges(calls: Sequence[Call], roots: Sequence[Path]) -> Iterator[Exchange]:
    """One client, one request at a time: each answer belongs to the request before it."""
    request: tuple[float, str] | None = None
    for call in calls:
        if not call.path.startswith("TCP:"):
            continue
        if call.name == "recvfrom" and (found := re.search(r'"((?:PUT|POST|DELETE) /proof\S*)', call.rest)):
            request = (call.began, found[1])
        elif request and (found := re.search(r'"HTTP/1\.1 (\d+)', call.rest)):
            # Upkeep commits as well, and its record may be half-way when this answer leaves.
            own = [other for other in calls if other.process == call.process]
            inside = [other for other in own if request[0] <= other.began and other.ended <= call.began]
            yield Exchange(request[1], int(found[1]), *drives_of(inside, roots))
            request = None


def drives_of(calls: Sequence[Call], roots: Sequence[Path]) -> tuple[dict[str, set[str]], dict[str, set[str]]]:
    """(durable, touched) of an exchange's calls."""
    written: dict[tuple[str, str, str], float] = {}
    synced: dict[tuple[str, str, str], float] = {}
    for call in calls:
        for root in roots:
            if not call.path.startswith(f"{root}/"):
                continue
            kind = call.path[len(str(root)) + 1 :].partition("/")[0]
            if kind == "meta" and not Path(call.path).name.startswith("log"):
                continue  # the view can be made again from the log
            place = (kind, root.name, call.path)
            if call.name in ("fsync", "fdatasync") and call.rest.startswith(") = 0"):
                synced[place] = max(synced.get(place, 0.0), call.began)
            elif "write" in call.name:
                written[place] = max(written.get(place, 0.0), call.ended)
    durable: dict[str, set[str]] = {"segments": set(), "meta": set()}
    touched: dict[str, set[str]] = {"segments": set(), "meta": set()}
    for kind, drive, _ in written:
        touched.setdefault(kind, set()).add(drive)
    for kind, drives in touched.items():
        for drive in drives:
            places = [place for place in written if place[:2] == (kind, drive)]
            if all(synced.get(place, 0.0) >= written[place] for place in places):
                durable.setdefault(kind, set()).add(drive)
    return durable, touched


def converse(s3: S3Client) -> None:
    """Every kind of request that acknowledges a change; bodies that neither shrink nor fit into a row."""
    random = Random(11)
    for number in range(4):
        assert s3.put("proof", f"small-{number}", random.randbytes(2 * KIB)).status == 200
        assert s3.put("proof", f"block-{number}", random.randbytes(600 * KIB)).status == 200
    assert s3.put("proof", "small-0", b"again", {"if-match": s3.head("proof", "small-0").headers["etag"]}).status == 200
    assert s3.multipart("proof", "parts", [random.randbytes(600 * KIB)]).status == 200
    for name in ("small-1", "block-1"):
        assert s3.delete("proof", name).status == 204


def unsynced(
    home: Path, *, drives: int, segments: int, mirrors: int, environment: dict[str, str] | None = None
) -> list[Exchange]:
    """The exchanges that were answered before enough drives had synced. Skips where there is no strace."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("not run: syncs before each answer. There is no strace on this machine")
    trace = str(home / "trace")
    prefix = (strace, "-ff", "--seccomp-bpf", "-ttt", "-T", "-yy", "-s", "48", "-e", f"trace={CALLS}", "-o", trace)
    roots = make_directories(home, drives)
    with Server(roots, home / "log", workers=1, prefix=prefix, environment=environment) as server:
        with server.client() as s3:
            assert s3.make_bucket("proof").status == 200
            converse(s3)
        process_of = threads_of(server)
        server.stop()
    found = list(exchanges(read_calls(home, process_of), roots))
    assert len(found) == 15, [exchange.line for exchange in found]
    assert all(exchange.status in (200, 204) for exchange in found), found
    assert any("partNumber" in exchange.line for exchange in found)
    early = [exchange for exchange in found if len(exchange.durable["meta"]) < mirrors]
    large = [exchange for exchange in found if "PUT /proof/block" in exchange.line or "partNumber" in exchange.line]
    return early + [exchange for exchange in large if len(exchange.durable["segments"]) < segments]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("drives", "segments", "mirrors"),
    [
        pytest.param(1, 1, 1, id="1 drive: one copy"),
        pytest.param(3, 2, 2, id="3 drives: 2 copies", marks=pytest.mark.soak),
        pytest.param(6, 5, 3, id="6 drives: 4+2"),
    ],
)
def test_synced_on_the_write_quorum_before_each_answer(
    tmp_path: Path, drives: int, segments: int, mirrors: int
) -> None:
    assert unsynced(tmp_path, drives=drives, segments=segments, mirrors=mirrors) == []
