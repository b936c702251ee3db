"""An upload through the API server: its id is the SHA-1 of its bytes, and it is put on the first server that takes it.

A body of more than `CHUNK_BYTES` is stored in chunks while it arrives: one is sent on while the next comes in. Its
list is put last, so that a file is there whole or not at all; of an upload that breaks off, chunks stay.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.errors import AlreadyExists, InvalidRequest, Unavailable
from holdfast.core.ids import Buffer
from holdfast.gateways.sos.blobs import check_headers
from holdfast.gateways.sos.chunks import CHUNK_BYTES, ENTRY_BYTES, LIST_MAX_BYTES, Chunk, ChunkList, list_id
from holdfast.gateways.sos.fleet import Fleet
from holdfast.gateways.sos.spool import Hash, Spool

_LOGGER = logging.getLogger(__name__)

Headers = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Uploaded:
    id: str
    size: int


class Uploader:
    """Takes files in. One for each worker."""

    def __init__(self, fleet: Fleet, spool_directory: Path, chunk_bytes: int = CHUNK_BYTES) -> None:
        self._fleet = fleet
        self._directory = spool_directory
        self._chunk_bytes = chunk_bytes

    async def upload(self, body: AsyncIterator[Buffer], headers: Headers) -> Uploaded:
        """Store a file. Raises Unavailable when no server took it, and what `body` raises."""
        check_headers(headers)
        return await _Upload(self, headers).run(body)

    def spool(self, also: Hash | None = None) -> Spool:
        return Spool(self._directory, also)

    @property
    def chunk_bytes(self) -> int:
        return self._chunk_bytes

    async def store(self, spool: Spool, headers: Headers) -> Chunk:
        """Put what is in a spool, which is closed then, under its SHA-1."""
        try:
            chunk = Chunk(spool.sha1, spool.size)
            whole = spool.whole()
            await self.put(chunk.id, chunk.size, spool.read if whole is None else whole, headers)
            return chunk
        finally:
            spool.close()

    async def put(
        self, id: str, size: int, body: bytes | Callable[[], AsyncIterator[Buffer]], headers: Headers
    ) -> None:
        """Put a blob on the first server that takes it. Raises Unavailable."""
        for client in self._fleet.for_upload():
            try:
                await client.put(id, size, body, headers)
            except Unavailable as error:
                _LOGGER.warning("%s", error)
                self._fleet.failed(client.server)
            except AlreadyExists as error:
                # It is no copy of this object, and will never be one.
                _LOGGER.warning("%s: its copy is wrong", error)
                self._fleet.accuse(id, client.server)
            else:
                _LOGGER.debug("stored %s, %d bytes, on %s", id, size, client.server.url)
                self._fleet.answered(client.server)
                self._fleet.located(id, client.server)
                return
        raise Unavailable(f"no blob server took {id}")


class _Upload:
    """One upload: a spool that fills, and at most one chunk on its way."""

    def __init__(self, uploader: Uploader, headers: Headers) -> None:
        self._uploader = uploader
        self._headers = headers
        self._spool = uploader.spool()
        self._whole: Hash | None = None
        """Of all bytes; None while they are those of the one spool."""
        self._sending: asyncio.Task[Chunk] | None = None
        self._chunks: list[Chunk] = []

    async def run(self, body: AsyncIterator[Buffer]) -> Uploaded:
        try:
            async for piece in body:
                view = memoryview(piece)
                while view:
                    room = self._uploader.chunk_bytes - self._spool.size
                    if not room:
                        await self._begin_chunk()
                        continue
                    await self._spool.write(view[:room])
                    view = view[room:]
            await self._spool.finish()
            if self._whole is None:
                chunk = await self._uploader.store(self._spool, self._headers)
                return Uploaded(chunk.id, chunk.size)
            return await self._finish_chunks(self._whole)
        finally:
            await self._end()

    async def _begin_chunk(self) -> None:
        """The spool is full and there is more: send it on, and gather the rest in another."""
        await self._spool.finish()
        if self._whole is None:
            self._whole = self._spool.copy_hash()
        await self._send()
        self._spool = self._uploader.spool(self._whole)

    async def _send(self) -> None:
        await self._collect()
        self._sending = asyncio.create_task(self._uploader.store(self._spool, {}), name="chunk")

    async def _collect(self) -> None:
        """Wait for the chunk that is on its way."""
        if self._sending is not None:
            self._chunks.append(await self._sending)
            self._sending = None

    async def _finish_chunks(self, whole: Hash) -> Uploaded:
        await self._send()
        await self._collect()
        listed = ChunkList(whole.hexdigest(), self._chunks)
        data = listed.encode()
        if len(data) > LIST_MAX_BYTES:
            raise InvalidRequest(f"a file may have {LIST_MAX_BYTES // ENTRY_BYTES * CHUNK_BYTES} bytes")
        await self._uploader.put(list_id(listed.id), len(data), data, self._headers)
        return Uploaded(listed.id, listed.size)

    async def _end(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)
        self._spool.close()
