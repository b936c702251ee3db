"""Blobs in databases: cut into pieces on the way in, joined and checked on the way out.

A database gives back what it was given, or so it says: the SHA-256 of each blob is kept beside it and compared on every
read, before the last piece is handed on.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Self

import msgspec

from holdfast.core.errors import Corrupt, Unavailable
from holdfast.core.ids import Buffer
from holdfast.core.limits import MIB
from holdfast.gateways.sos.blobs import BlobInfo, Sum

# One command to the database: large enough that its cost does not count, small enough to have some for each stream.
PIECE_BYTES = MIB

# Who died in the middle of an upload leaves pieces that nothing refers to: where keys can expire, they do.
ABANDONED_SECONDS = 24 * 3600


class Head(msgspec.Struct, frozen=True):
    """What is kept of a blob beside its pieces, as JSON where the database has no columns."""

    format: int
    size: int
    sha256: str
    upload: str
    """Names the pieces: those of another upload of the same id are others."""
    headers: dict[str, str]
    pieces: int
    place: int = 0
    """memcached: where the id stands in the list of all ids."""

    FORMAT = 1

    @classmethod
    def of(cls, came: Sum, headers: Mapping[str, str], upload: str, pieces: int, place: int = 0) -> Self:
        return cls(cls.FORMAT, came.size, came.digest().hex(), upload, dict(headers), pieces, place)

    @classmethod
    def decode(cls, row: bytes) -> Self:
        """Raises Corrupt."""
        try:
            head = msgspec.json.decode(row, type=cls)
        except msgspec.MsgspecError as error:
            raise Corrupt(f"the head of a blob cannot be read: {error}") from None
        if head.format != cls.FORMAT:
            raise Corrupt(f"the head of a blob has format {head.format}")
        return head

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    def info(self, id: str) -> BlobInfo:
        return BlobInfo(id, self.size, self.headers)


async def cut(body: AsyncIterator[Buffer], piece_bytes: int = PIECE_BYTES) -> AsyncGenerator[bytes, None]:
    """A body in pieces of one length, but for the last."""
    filling = bytearray()
    async for chunk in body:
        filling += chunk
        while len(filling) >= piece_bytes:
            yield bytes(filling[:piece_bytes])
            del filling[:piece_bytes]
    if filling:
        yield bytes(filling)


async def checked(id: str, pieces: AsyncIterator[bytes | None], size: int, sha256: str) -> AsyncGenerator[Buffer, None]:
    """Pieces as they come, None for one that is not there. Raises Corrupt before the last when the whole is wrong,
    Unavailable when the blob was deleted meanwhile."""
    came = Sum()
    held: bytes | None = None
    async for piece in pieces:
        if piece is None:
            raise Unavailable(f"a piece of {id} is gone: it was deleted while it was read, or the database lost it")
        await came.update(piece)
        if held is not None:
            yield held
        held = piece
    if (came.size, came.digest().hex()) != (size, sha256):
        raise Corrupt(f"{id} is not what was put: the database gave back {came.size} bytes of {size}, or others")
    if held is not None:
        yield held
