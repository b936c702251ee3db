"""A download through the API server: found by its id alone, and compared with it.

Rules. A file's id is the SHA-1 of its bytes. Up to `HOLD_MAX_BYTES` a blob is read and compared before a byte of it is
handed on: a server whose copy is wrong is passed by. A longer one is handed on while it is hashed, but for its last
piece, which waits for the hash. When a server breaks off, falls silent, or turns out to be wrong, another goes on where
it ended, if the bytes that were handed on are those of the other's copy; only when they are not, the download fails,
and the connection with it. So a client either gets the right bytes to the end, or sees that it did not.

404 is answered when every server said so. If one could not be asked, the file may be there: that is Unavailable.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from itertools import chain

from holdfast.core.errors import Corrupt, HoldfastError, NotFound, Timeout, Unavailable
from holdfast.core.limits import MIB
from holdfast.gateways.sos.blob_client import SILENCE_MAX_SECONDS, BlobClient, Found
from holdfast.gateways.sos.chunks import LIST_MAX_BYTES, ChunkList, is_file_id, list_id, listed_file
from holdfast.gateways.sos.fleet import Fleet
from holdfast.gateways.sos.spool import Hash

# Held in memory while it is compared; more than this is handed on at once.
HOLD_MAX_BYTES = 4 * MIB

# Of all downloads of a worker together. Beyond it a download is handed on while it is compared, however short.
HOLD_TOTAL_MAX_BYTES = 64 * MIB

# How long a server may take to begin, as long as there are others to ask. Those that needed longer are asked again
# afterwards, with all patience.
IMPATIENT_SECONDS = 2.0

# A server that broke off may be back: it is asked once more.
ATTEMPTS_MAX_COUNT = 2

_THREAD_MIN_BYTES = 32 * 1024
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class File:
    """A file that was found, and its bytes. Close `pieces`."""

    headers: Mapping[str, str]
    size: int | None
    """None when the one server that has it did not say."""
    pieces: AsyncGenerator[bytes, None]


@dataclass(slots=True)
class _Source:
    """A blob that a server sends, as far as it was read."""

    client: BlobClient
    found: Found
    stack: AsyncExitStack
    begun: list[bytes] = field(default_factory=list)
    """Its first pieces, when they were read to compare them."""
    ended: bool = False
    """They are all."""

    async def pieces(self) -> AsyncIterator[bytes]:
        while self.begun:
            yield self.begun.pop(0)
        if not self.ended:
            async for piece in self.found.pieces:
                yield piece


class Fetcher:
    """Finds files and hands them out. One for each worker."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._held = 0

    async def head(self, id: str) -> tuple[int | None, Mapping[str, str]]:
        """Size, if it is known, and `X-*` headers. Raises NotFound, Unavailable."""
        if listed_file(id) is not None:
            raise NotFound(f"{id} is no file")
        unasked: list[HoldfastError] = []
        for client in self._fleet.for_fetch(id):
            try:
                return await client.info(id)
            except NotFound:
                continue
            except Unavailable as error:
                self._note(client, error)
                unasked.append(error)
        listed = await self._list(id, unasked)
        return listed[0].size, listed[1]

    async def open(self, id: str) -> File:
        """Raises NotFound, Unavailable, Corrupt (no server has it right)."""
        if listed_file(id) is not None:
            raise NotFound(f"{id} is no file")
        unasked: list[HoldfastError] = []
        source = await self._find(id, unasked)
        if source is not None:
            size = sum(map(len, source.begun)) if source.ended else source.found.size
            return File(source.found.headers, size, self._verified(id, source))
        listed, headers = await self._list(id, unasked)
        return File(headers, listed.size, self._chunks(listed))

    async def _list(self, id: str, unasked: list[HoldfastError]) -> tuple[ChunkList, Mapping[str, str]]:
        """The chunk list of a file that no server has whole."""
        if is_file_id(id):
            source = await self._find(list_id(id), unasked)
            if source is not None:
                async with source.stack:
                    data = b"".join(source.begun)
                return ChunkList.decode(data, id), source.found.headers
        if unasked:
            raise unasked[0]
        raise NotFound(f"no blob server has {id}")

    async def _chunks(self, listed: ChunkList) -> AsyncGenerator[bytes, None]:
        """The bytes of a large file. Each chunk is compared with its id, and all of them with the file's."""
        whole, held = hashlib.sha1(usedforsecurity=False), b""
        for chunk in listed.chunks:
            unasked: list[HoldfastError] = []
            source = await self._find(chunk.id, unasked)
            if source is None:
                raise unasked[0] if unasked else Unavailable(f"no blob server has {chunk.id}, a chunk of {listed.id}")
            size = 0
            async with aclosing(self._verified(chunk.id, source)) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    await _update(whole, piece)
                    if held:
                        yield held
                    held = piece
            if size != chunk.size:
                raise Corrupt(f"the chunk list of {listed.id} is wrong about {chunk.id}")
        if whole.hexdigest() != listed.id:
            raise Corrupt(f"the chunk list of {listed.id} is of another file")
        yield held

    def _accuse(self, id: str, client: BlobClient, error: Corrupt) -> None:
        _LOGGER.warning("%s: %s", client.server.url, error)
        self._fleet.accuse(id, client.server)

    def _note(self, client: BlobClient, error: HoldfastError) -> None:
        _LOGGER.warning("%s", error)
        self._fleet.failed(client.server)

    # One blob

    async def _find(
        self, id: str, unasked: list[HoldfastError], tried: Mapping[str, int] | None = None
    ) -> _Source | None:
        """The first server that sends this blob, and sends it right as far as that can be seen before it is handed on.

        None when there is none; `unasked` then has why some could not be asked. Servers that were `tried` often enough
        are left out. Raises Corrupt when all that have it have it wrong.
        """
        slow: list[BlobClient] = []
        wrong: Corrupt | None = None
        clients = [
            client
            for client in self._fleet.for_fetch(id)
            if tried is None or tried.get(client.server.url, 0) < ATTEMPTS_MAX_COUNT
        ]
        for client, patience in chain(
            ((client, IMPATIENT_SECONDS) for client in clients), ((client, SILENCE_MAX_SECONDS) for client in slow)
        ):
            try:
                return await self._ask(client, id, patience)
            except NotFound:
                self._fleet.answered(client.server)
            except Corrupt as error:
                wrong = error
                self._accuse(id, client, error)
            except Timeout as error:
                self._note(client, error)
                if patience == IMPATIENT_SECONDS:
                    slow.append(client)
                else:
                    unasked.append(error)
            except Unavailable as error:
                self._note(client, error)
                unasked.append(error)
        if wrong is not None and not unasked:
            raise wrong
        return None

    async def _ask(self, client: BlobClient, id: str, patience: float) -> _Source:
        """Raises NotFound, Unavailable, Corrupt."""
        _LOGGER.debug("asking %s for %s", client.server.url, id)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(patience):
                    found = await stack.enter_async_context(client.open(id))
            except TimeoutError:
                raise Timeout(f"{client.server.url} did not begin within {patience:.0f} s") from None
            source = _Source(client, found, stack)
            await self._begin(id, source)
            source.stack = stack.pop_all()
        self._fleet.answered(client.server)
        self._fleet.located(id, client.server)
        return source

    async def _begin(self, id: str, source: _Source) -> None:
        """Read a short blob whole and compare it. Raises Corrupt, Unavailable."""
        limit, size = HOLD_MAX_BYTES, source.found.size
        if listed_file(id) is not None:
            limit = LIST_MAX_BYTES
        elif (size or 0) > HOLD_MAX_BYTES or self._held + HOLD_MAX_BYTES > HOLD_TOTAL_MAX_BYTES:
            return
        self._held += limit
        source.stack.callback(self._give_back, limit)
        async for piece in source.found.pieces:
            source.begun.append(piece)
            limit -= len(piece)
            if limit < 0:
                return
        _check(id, b"".join(source.begun))
        source.ended = True

    def _give_back(self, count: int) -> None:
        self._held -= count

    async def _verified(self, id: str, source: _Source) -> AsyncGenerator[bytes, None]:
        """The bytes of a blob from `source`, and when that fails from another server. Raises Corrupt, Unavailable."""
        tried = {source.client.server.url: 1}
        delivered = Delivered()
        while True:
            failed: HoldfastError
            try:
                async with source.stack, aclosing(self._delivery(id, source, delivered)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except Corrupt as error:
                failed = error
                tried[source.client.server.url] = ATTEMPTS_MAX_COUNT
                if not isinstance(error, Diverged):
                    self._accuse(id, source.client, error)
            except Unavailable as error:
                failed = error
                self._note(source.client, error)
            _LOGGER.warning("%s breaks off after %d bytes; another server is asked", id, delivered.size)
            found = await self._find(id, [], tried)
            if found is None:
                raise failed
            source = found
            tried[source.client.server.url] = tried.get(source.client.server.url, 0) + 1

    async def _delivery(self, id: str, source: _Source, delivered: "Delivered") -> AsyncGenerator[bytes, None]:
        """What of `source` is not delivered yet, its last piece when the whole was compared."""
        mine, held = hashlib.sha1(usedforsecurity=False), b""
        skip = delivered.size
        async for piece in source.pieces():
            if skip:
                head, piece = piece[:skip], piece[skip:]
                skip -= len(head)
                await _update(mine, head)
                if not skip and mine.digest() != delivered.digest:
                    raise Diverged(f"{id}: what was handed on before is not how this copy begins")
            if not piece:
                continue
            if held:
                delivered.add(len(held), mine.digest())
                yield held
            held = piece
            await _update(mine, piece)
        if skip or (is_file_id(id) and mine.hexdigest() != id):
            raise Corrupt(f"{id}: its bytes have another SHA-1")
        yield held


class Diverged(Corrupt):
    """Two copies differ in what was handed on already. Which is right, nobody has seen yet."""

    code = "corrupt"


@dataclass(slots=True)
class Delivered:
    """How far a download has come, whichever servers it came from."""

    size: int = 0
    digest: bytes = b""
    """SHA-1 of these bytes."""

    def add(self, count: int, digest: bytes) -> None:
        self.size += count
        self.digest = digest


def _check(id: str, data: bytes) -> None:
    """Raises Corrupt unless these are the bytes of that id, as far as an id says."""
    file_id = listed_file(id)
    if file_id is not None:
        ChunkList.decode(data, file_id)
    elif is_file_id(id) and hashlib.sha1(data, usedforsecurity=False).hexdigest() != id:
        raise Corrupt(f"{id}: its bytes have another SHA-1")


async def _update(running: Hash, piece: bytes) -> None:
    if len(piece) < _THREAD_MIN_BYTES:
        running.update(piece)
    else:
        await asyncio.to_thread(running.update, piece)
