"""What a blob server keeps its blobs in: `BlobStore`, a small protocol with one suite that every store must pass
(`holdfast.testing.blob_suite`).

Rules. A blob is bytes and headers under an id. Ids are immutable: an id holds the same bytes for ever, or none. Nothing
partial is ever visible. A put that returned is as durable as the store can make it. Nothing holds a whole blob in
memory.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from holdfast.core.errors import AlreadyExists, HoldfastError, InvalidName, InvalidRequest, Unavailable
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB

# memcached's keys end at 250 bytes, file names of the original's blob servers at 255; ours need some for themselves.
ID_MAX_CHARS = 200

# All `X-*` headers of a blob together, names and values: what a server takes as the head of one request.
HEADERS_MAX_BYTES = 64 * KIB

# As many as a database is given connections for.
PUTS_AT_ONCE_COUNT = 16

# Below this a thread costs more than the hash.
_HASH_INLINE_MAX_BYTES = 32 * KIB

_ID = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What is known of a blob without its bytes."""

    id: str
    size: int
    headers: Mapping[str, str]
    """The `X-*` headers that it was posted with, names in lower case."""


class SmallBlob(msgspec.Struct, array_like=True, frozen=True):
    """One of many blobs that are put at once; whoever makes a batch of them bounds it."""

    id: str
    headers: dict[str, str]
    data: bytes


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that was looked up, and its bytes in order. Whoever does not read to the end closes `pieces`."""

    info: BlobInfo
    pieces: AsyncGenerator[Buffer, None]
    """Raises Corrupt, Unavailable: what was yielded before is right."""


class BlobStore(Protocol):
    """Blobs under ids that were checked by `check_id`. Any number of tasks and processes may use one store at once."""

    async def put(self, id: str, body: AsyncIterator[Buffer], headers: Mapping[str, str]) -> int:
        """Store a blob; its size. On return it is durable, and every process finds it.

        Putting the bytes that the id holds already changes nothing, its headers neither. Raises AlreadyExists when the
        id holds other bytes, Full, Unavailable, and whatever `body` raises; then nothing of it can be seen. A
        cancellation leaves nothing visible.
        """
        ...

    async def put_many(self, blobs: Sequence[SmallBlob]) -> list[int | HoldfastError]:
        """As `put` for each, in any order: sizes, and errors in the place of what they befell."""
        ...

    async def info(self, id: str) -> BlobInfo:
        """Raises NotFound."""
        ...

    async def open(self, id: str) -> Blob:
        """Raises NotFound."""
        ...

    def ids(self) -> AsyncIterator[Sequence[str]]:
        """Every id once, in batches and any order. What is put or deleted meanwhile may be in it or not."""
        ...

    async def delete(self, id: str) -> None:
        """On return nobody finds it. A missing one is no error."""
        ...

    async def close(self) -> None: ...


def headers_bytes(headers: Mapping[str, str]) -> int:
    """What counts of HEADERS_MAX_BYTES."""
    return sum(len(name) + len(value) for name, value in headers.items())


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises InvalidRequest when there are too many to keep with a blob."""
    if headers_bytes(headers) > HEADERS_MAX_BYTES:
        raise InvalidRequest(f"the X-* headers have more than {HEADERS_MAX_BYTES} bytes")


async def put_each(store: BlobStore, blobs: Sequence[SmallBlob]) -> list[int | HoldfastError]:
    """`put_many` of a store that has nothing better than to put some at the same time."""
    slots = asyncio.Semaphore(PUTS_AT_ONCE_COUNT)

    async def put(blob: SmallBlob) -> int | HoldfastError:
        async with slots:
            try:
                return await store.put(blob.id, _once(blob.data), blob.headers)
            except HoldfastError as error:
                return error

    return await asyncio.gather(*map(put, blobs))


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def check_id(id: str) -> None:
    """Raises InvalidName unless `id` may name a blob."""
    if not _ID.fullmatch(id) or len(id) > ID_MAX_CHARS:
        raise InvalidName("alphanumeric IDs only")


def is_id(text: str) -> bool:
    """Whether `text` may name a blob."""
    return bool(_ID.fullmatch(text)) and len(text) <= ID_MAX_CHARS


class Sum:
    """SHA-256 and size of a body as it goes by; long pieces are hashed in a thread."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.size = 0

    async def update(self, piece: Buffer) -> None:
        """One at a time."""
        self.size += len(piece)
        if len(piece) <= _HASH_INLINE_MAX_BYTES:
            self._hash.update(piece)
        else:
            await asyncio.to_thread(self._hash.update, piece)

    def digest(self) -> bytes:
        return self._hash.digest()


async def expect_same(id: str, body: AsyncIterator[Buffer], size: int, sha256: bytes) -> int:
    """Read a body for an id that is taken. Its size when it is what the id holds; else raises AlreadyExists."""
    came = Sum()
    async for piece in body:
        await came.update(piece)
    if (came.size, came.digest()) != (size, sha256):
        raise other_bytes(id)
    return size


def other_bytes(id: str) -> AlreadyExists:
    return AlreadyExists(f"{id} holds other bytes already, and ids are immutable")


def deleted_meanwhile(id: str) -> Unavailable:
    """Two puts and a deletion met: neither put can say what became of it."""
    return Unavailable(f"{id} was deleted while it was put")
