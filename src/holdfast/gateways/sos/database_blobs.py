"""A blob store over whatever database keeps heads and pieces: what `BlobStore` promises, said once for all of them.

A `Database` keeps, under an id, one head and the pieces that it names, and decides between two uploads of one id.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from holdfast.core.clock import Randomness
from holdfast.core.errors import HoldfastError, NotFound
from holdfast.core.ids import Buffer
from holdfast.gateways.sos.blobs import (
    Blob,
    BlobInfo,
    SmallBlob,
    Sum,
    deleted_meanwhile,
    expect_same,
    other_bytes,
    put_each,
)
from holdfast.gateways.sos.pieces import Head, checked

_UPLOAD_BYTES = 16


class Database(Protocol):
    """What the databases do each in its own way. Their errors come as Full, Unavailable, Corrupt."""

    async def find(self, id: str) -> Head | None: ...

    async def insert(
        self, id: str, upload: str, body: AsyncIterator[Buffer], headers: Mapping[str, str], came: Sum
    ) -> bool:
        """Keep a body under an id that was free; `came` counts it. False when somebody else has put the id meanwhile.

        `upload` is a name that no other upload has. Nothing of it is seen before its end. Whatever is not published in
        the end, as after an error or a cancellation, is deleted or expires.
        """
        ...

    def pieces(self, id: str, head: Head) -> AsyncIterator[bytes | None]:
        """In order; None for one that is not there."""
        ...

    def ids(self) -> AsyncIterator[Sequence[str]]:
        """As `BlobStore.ids`."""
        ...

    async def delete(self, id: str) -> None:
        """As `BlobStore.delete`."""
        ...

    async def close(self) -> None: ...


class DatabaseBlobs:
    """`BlobStore` in a database. Closing it closes the database."""

    def __init__(self, database: Database, randomness: Randomness) -> None:
        self._database = database
        self._randomness = randomness

    async def put(self, id: str, body: AsyncIterator[Buffer], headers: Mapping[str, str]) -> int:
        found = await self._database.find(id)
        if found is not None:
            return await expect_same(id, body, found.size, bytes.fromhex(found.sha256))
        upload, came = self._randomness.bytes(_UPLOAD_BYTES).hex(), Sum()
        if await self._database.insert(id, upload, body, headers, came):
            return came.size
        winner = await self._database.find(id)
        if winner is None:
            raise deleted_meanwhile(id)
        if (winner.size, winner.sha256) != (came.size, came.digest().hex()):
            raise other_bytes(id)
        return winner.size

    async def put_many(self, blobs: Sequence[SmallBlob]) -> list[int | HoldfastError]:
        return await put_each(self, blobs)

    async def info(self, id: str) -> BlobInfo:
        return (await self._known(id)).info(id)

    async def open(self, id: str) -> Blob:
        head = await self._known(id)
        return Blob(head.info(id), checked(id, self._database.pieces(id, head), head.size, head.sha256))

    def ids(self) -> AsyncIterator[Sequence[str]]:
        return self._database.ids()

    async def delete(self, id: str) -> None:
        await self._database.delete(id)

    async def close(self) -> None:
        await self._database.close()

    async def _known(self, id: str) -> Head:
        head = await self._database.find(id)
        if head is None:
            raise NotFound(f"nothing is kept under {id}")
        return head
