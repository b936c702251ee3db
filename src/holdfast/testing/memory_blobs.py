"""A blob store in memory, that passes the suite and can be told to misbehave."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

from holdfast.core.errors import Full, HoldfastError, NotFound, Unavailable
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB
from holdfast.gateways.sos.blobs import Blob, BlobInfo, SmallBlob, other_bytes, put_each

_PIECE_BYTES = 64 * KIB
_BATCH_IDS = 100


class MemoryBlobs:
    """`BlobStore` in a dict. Two handles are two of these over one dict."""

    def __init__(self, blobs: dict[str, tuple[bytes, Mapping[str, str]]] | None = None) -> None:
        self.blobs = {} if blobs is None else blobs
        self.full = False
        """Refuse every new blob."""
        self.breaks_after: int | None = None
        """Readers fail behind so many bytes."""

    async def put(self, id: str, body: AsyncIterator[Buffer], headers: Mapping[str, str]) -> int:
        data = b"".join([bytes(piece) async for piece in body])
        if self.full and id not in self.blobs:
            raise Full("no space left")
        if self.blobs.setdefault(id, (data, dict(headers)))[0] != data:
            raise other_bytes(id)
        return len(data)

    async def put_many(self, blobs: Sequence[SmallBlob]) -> list[int | HoldfastError]:
        return await put_each(self, blobs)

    async def info(self, id: str) -> BlobInfo:
        if id not in self.blobs:
            raise NotFound(f"nothing is kept under {id}")
        data, headers = self.blobs[id]
        return BlobInfo(id, len(data), headers)

    async def open(self, id: str) -> Blob:
        return Blob(await self.info(id), self._pieces(self.blobs[id][0]))

    async def _pieces(self, data: bytes) -> AsyncGenerator[Buffer, None]:
        for start in range(0, len(data), _PIECE_BYTES):
            if self.breaks_after is not None and start >= self.breaks_after:
                raise Unavailable("told to break")
            yield data[start : start + _PIECE_BYTES]

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        ids = list(self.blobs)
        for start in range(0, len(ids), _BATCH_IDS):
            yield ids[start : start + _BATCH_IDS]

    async def delete(self, id: str) -> None:
        self.blobs.pop(id, None)

    async def close(self) -> None:
        """Nothing is open."""
