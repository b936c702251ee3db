"""What is measured: the rows of the table in docs/performance.md.

A row says how many connections it takes, what must be there before, and gives each connection an endless (or finite)
source of signed requests. Object names carry the length: "run/4096-17". Contents are random bytes that do not
compress, the first of them the object's number, so that one object cannot pass for another.
"""

import itertools
import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import md5, sha256
from random import Random
from urllib.parse import quote

from bench.loop import Request
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB, MIB
from holdfast.testing.s3_client import S3Client, amz_date
from holdfast.testing.signing import (
    CHUNKED,
    EMPTY_SHA256,
    UNSIGNED,
    Signer,
    canonical_query,
    chunk_digests,
    chunked_length,
    signature,
)

BUCKET = "bench"

NEXT_TOKEN = re.compile(rb"<NextContinuationToken>([^<]+)<")

# Up to here a request travels as one piece, head and body.
SMALL_MAX_BYTES = 64 * KIB

# A number in front of the bytes that all objects share.
NUMBER_BYTES = 16

# One answer in this many is compared byte by byte.
SMALL_VERIFIED_ONE_IN = 50
LARGE_VERIFIED_ONE_IN = 8

# How many objects the reading rows spread over.
SMALL_OBJECTS_COUNT = 2000
LARGE_OBJECTS_BYTES = 512 * MIB

KEYS_PER_DELETE_COUNT = 100
DELETED_KEYS_COUNT = 10_000
LISTED_KEYS_COUNT = 2500
FOLDERS_COUNT = 4


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes, and how it is signed."""

    address: tuple[str, int]
    signer: Signer
    payload: str = "signed"
    """signed (SHA-256 of the body in the head), unsigned, or chunked (each 64 KiB signed, as minio-go and warp do)."""
    run: str = "run"
    """The prefix of this run's keys."""
    verify: bool = True

    @property
    def host(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    def head(
        self, method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], payload: str
    ) -> tuple[bytes, str, str]:
        """A signed head, its signature and its date."""
        date = amz_date()
        signed = self.signer.sign(method, path, query, {"host": self.host, **headers}, payload, date)
        target = path + ("?" + canonical_query(query) if query else "")
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode(), signature(signed), date

    def client(self) -> S3Client:
        return S3Client(self.address, self.signer)


class Contents:
    """The bytes of every object of one size."""

    def __init__(self, size: int) -> None:
        self._common = Random(size).randbytes(max(0, min(size, 16 * MIB) - NUMBER_BYTES))
        self.size = size

    def body(self, number: int) -> bytes:
        """The object's bytes: its number, then the common ones, over and over, shifted so that no block repeats."""
        pieces = [number.to_bytes(NUMBER_BYTES, "little"), self._common]
        length = NUMBER_BYTES + len(self._common)
        shift = 1
        while length < self.size:
            pieces.append(self._common[shift:])
            length += len(self._common) - shift
            shift += 4099
        return b"".join(pieces)[: self.size]


Sources = Callable[[Target, int, int], Iterator[Request]]
"""(target, connection, connections) -> the requests of that connection."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    connections: int
    unit: str
    """objects/s, keys/s or MiB/s."""
    sources: Sources
    prepare: Sources | None = None
    """Finite: run to its end before the clock starts."""
    ahead_count: int = 1
    """Requests for each connection that are made and signed before the clock starts."""
    exhaust: bool = False
    """Run until the sources end, not for a time."""


def object_path(target: Target, size: int, number: int) -> str:
    return f"/{BUCKET}/{quote(target.run)}/{size}-{number}"


@dataclass(frozen=True, slots=True)
class Body:
    """An object's bytes, and what signing needs of them, made once: the server cannot tell."""

    data: bytes
    sha256: str = ""
    chunk_sha256: tuple[str, ...] = ()


def make_body(target: Target, data: bytes) -> Body:
    match target.payload:
        case "chunked":
            return Body(data, chunk_sha256=tuple(chunk_digests(data)))
        case "signed":
            return Body(data, sha256=sha256(data).hexdigest())
        case _:
            return Body(data, sha256=UNSIGNED)


def put_request(target: Target, path: str, body: Body) -> Request:
    """A PUT, signed in the target's way."""
    size = len(body.data)
    small = size <= SMALL_MAX_BYTES
    if not body.chunk_sha256:
        head, _, _ = target.head("PUT", path, [], {"content-length": str(size)}, body.sha256)
        return Request([head + body.data] if small else [head, body.data], transferred=size)
    headers = {
        "content-length": str(chunked_length(size)),
        "content-encoding": "aws-chunked",
        "x-amz-decoded-content-length": str(size),
    }
    head, seed, date = target.head("PUT", path, [], headers, CHUNKED)
    pieces = _flat(head, target.signer.chunks(body.data, seed, date, body.chunk_sha256))
    return Request([b"".join(pieces)] if small else pieces, transferred=size)


def _flat(head: bytes, chunks: Iterable[tuple[Buffer, Buffer, Buffer]]) -> Iterator[Buffer]:
    """What to send, in as few pieces as need no copy of the data."""
    pending: bytes = head
    for frame, data, end in chunks:
        yield pending + bytes(frame)
        yield data
        pending = bytes(end)
    yield pending


def puts(size: int) -> Sources:
    """New objects, one after the other."""

    def sources(target: Target, connection: int, connections: int) -> Iterator[Request]:
        contents = Contents(size)
        # Large bodies come from a small ring: making one costs as much as hashing it.
        ring = [make_body(target, contents.body(number)) for number in range(2)] if size > SMALL_MAX_BYTES else None
        for turn in itertools.count():
            number = connection + turn * connections
            body = ring[turn % 2] if ring else make_body(target, contents.body(number))
            yield put_request(target, object_path(target, size, number), body)

    return sources


def objects_count(size: int) -> int:
    return min(SMALL_OBJECTS_COUNT, max(8, LARGE_OBJECTS_BYTES // size))


def fill(size: int) -> Sources:
    """Put what the reading rows read."""

    def sources(target: Target, connection: int, connections: int) -> Iterator[Request]:
        contents = Contents(size)
        for number in range(connection, objects_count(size), connections):
            yield put_request(target, object_path(target, size, number), make_body(target, contents.body(number)))

    return sources


def reads(method: str, size: int) -> Sources:
    """GET or HEAD of objects that are there, in random order."""

    def sources(target: Target, connection: int, connections: int) -> Iterator[Request]:
        contents = Contents(size)
        numbers = list(range(connection, objects_count(size), connections)) or [connection % objects_count(size)]
        Random(connection).shuffle(numbers)
        one_in = SMALL_VERIFIED_ONE_IN if size <= SMALL_MAX_BYTES else LARGE_VERIFIED_ONE_IN
        # A signature is good for 15 minutes, so each head is made once.
        heads = {n: target.head(method, object_path(target, size, n), [], {}, EMPTY_SHA256)[0] for n in numbers}
        for turn, number in enumerate(itertools.cycle(numbers), connection):
            if method == "HEAD":
                yield Request([heads[number]], has_body=False)
                continue
            expected = None
            if target.verify and turn % one_in == 0:
                expected = lambda number=number: contents.body(number)  # noqa: E731
            yield Request([heads[number]], expected=expected, transferred=size)

    return sources


def fill_keys(count: int, folder: str) -> Sources:
    """Put `count` empty objects under each of four prefixes."""

    def sources(target: Target, connection: int, connections: int) -> Iterator[Request]:
        empty = make_body(target, b"")
        names = itertools.product(range(count), range(FOLDERS_COUNT))
        for number, prefix in itertools.islice(names, connection, None, connections):
            yield put_request(target, f"/{BUCKET}/{target.run}/{folder}-{prefix}/0-{number:07}", empty)

    return sources


def lists(target: Target, connection: int, connections: int) -> Iterator[Request]:
    """A connection's own prefix, from end to end, page by page."""
    prefix = f"{target.run}/list-{connection % FOLDERS_COUNT}/"
    token: list[str | None] = [None]

    def inspect(body: bytes) -> int:
        # Parsing a page costs a third of what the server takes to make it.
        found = NEXT_TOKEN.search(body)
        token[0] = found[1].decode("ascii") if found else None
        return body.count(b"<Key>")

    while True:
        query = [("list-type", "2"), ("max-keys", "1000"), ("prefix", prefix)]
        if token[0] is not None:
            query.append(("continuation-token", token[0]))
        head, _, _ = target.head("GET", f"/{BUCKET}", query, {}, EMPTY_SHA256)
        yield Request([head], inspect=inspect)


def deletes(target: Target, connection: int, connections: int) -> Iterator[Request]:
    """Multi-deletes of what `fill_keys` put, until nothing is left."""
    for prefix in range(connection, FOLDERS_COUNT, connections):
        for start in range(0, DELETED_KEYS_COUNT, KEYS_PER_DELETE_COUNT):
            keys = (f"{target.run}/delete-{prefix}/0-{n:07}" for n in range(start, start + KEYS_PER_DELETE_COUNT))
            body = b"<Delete>%s<Quiet>true</Quiet></Delete>" % b"".join(
                b"<Object><Key>%s</Key></Object>" % key.encode() for key in keys
            )
            headers = {
                "content-length": str(len(body)),
                "content-md5": b64encode(md5(body, usedforsecurity=False).digest()).decode(),
            }
            payload = sha256(body).hexdigest()
            head, _, _ = target.head("POST", f"/{BUCKET}", [("delete", "")], headers, payload)
            yield Request([head + body], units=KEYS_PER_DELETE_COUNT)


ROWS = {
    row.name: row
    for row in (
        Row("put-4k", 16, "objects/s", puts(4 * KIB), ahead_count=3000),
        Row("get-4k", 16, "objects/s", reads("GET", 4 * KIB), fill(4 * KIB)),
        Row("head-4k", 16, "objects/s", reads("HEAD", 4 * KIB), fill(4 * KIB)),
        Row("list", 4, "keys/s", lists, fill_keys(LISTED_KEYS_COUNT, "list"), ahead_count=0),
        Row("delete", 4, "keys/s", deletes, fill_keys(DELETED_KEYS_COUNT, "delete"), ahead_count=1000, exhaust=True),
        Row("put-1m", 8, "MiB/s", puts(MIB)),
        Row("get-1m", 8, "MiB/s", reads("GET", MIB), fill(MIB)),
        Row("put-64m", 4, "MiB/s", puts(64 * MIB)),
        Row("get-64m", 4, "MiB/s", reads("GET", 64 * MIB), fill(64 * MIB)),
        Row("put-64m-1", 1, "MiB/s", puts(64 * MIB)),
        Row("put-64m-32", 32, "MiB/s", puts(64 * MIB)),
    )
}
