"""Blobs in memcached, which forgets them when it is restarted, and unless it runs with -M when it is full.

    sos:head:<id>              JSON: size, SHA-256, headers, the upload that it was, its place in the list
    sos:data:<upload>:<n>      piece n; memcached's items end at 1 MiB
    sos:places                 counter: the last place of the list that was given out
    sos:place:<n>              the id at that place

An upload's pieces expire unless the upload is published. Publishing takes a place, writes the id there, and adds the
head, which says where its place is. So a place whose head is gone or names another place is a left-over, and listing
skips it. `add` decides between two uploads of one id.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

from aiomcache import Client
from aiomcache.exceptions import ClientException
from aiomcache.pool import Connection, MemcachePool

from holdfast.core.errors import Full, HoldfastError, InvalidRequest, Unavailable
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB
from holdfast.gateways.sos.blobs import Sum
from holdfast.gateways.sos.pieces import ABANDONED_SECONDS, Head, cut

T = TypeVar("T")

# memcached's default limit of an item is 1 MiB with its key and its own header, and its slab classes waste least at
# half of that.
PIECE_BYTES = 512 * KIB

# The head is an item, too.
HEAD_MAX_BYTES = 512 * KIB

_PAGE_IDS = 100
_COUNTER = b"sos:places"


class _Pool(MemcachePool):
    """aiomcache's connections, of which each is had for so many seconds, and then closed: a command that was not
    answered by then fails. So does one that no connection becomes free for."""

    def __init__(self, host: str, port: int, *, size: int, timeout_seconds: float) -> None:
        super().__init__(host, port, minsize=size, maxsize=size)
        self._timeout_seconds = timeout_seconds
        self._timers: dict[Connection, asyncio.TimerHandle] = {}

    async def acquire(self) -> Connection:
        async with asyncio.timeout(self._timeout_seconds):
            connection = await super().acquire()
        loop = asyncio.get_running_loop()
        self._timers[connection] = loop.call_later(self._timeout_seconds, _give_up, connection)
        return connection

    def release(self, conn: Connection) -> None:
        self._timers.pop(conn).cancel()
        super().release(conn)


def _give_up(connection: Connection) -> None:
    connection.reader.set_exception(TimeoutError("no answer"))
    # Who waits to write is told by this.
    connection.writer.transport.abort()


class LineClient(Client):
    """aiomcache's client, which at the end of a connection waits for the rest of a line for ever, without a pause, and
    for an answer as long as it takes."""

    def __init__(self, host: str, port: int, *, connections: int, timeout_seconds: float) -> None:
        super().__init__(host, port)
        self._pool = _Pool(host, port, size=connections, timeout_seconds=timeout_seconds)

    async def _execute_simple_command(self, conn: Connection, raw_command: bytes) -> bytes:
        conn.writer.write(raw_command)
        await conn.writer.drain()
        line = await conn.reader.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the connection ended")
        return line[:-2]


class MemcachedDatabase:
    """`Database` in one memcached."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def find(self, id: str) -> Head | None:
        row = await _do(self._client.get(_head(id)))
        return Head.decode(row) if row else None

    async def insert(
        self, id: str, upload: str, body: AsyncIterator[Buffer], headers: Mapping[str, str], came: Sum
    ) -> bool:
        count = 0
        try:
            async for piece in cut(body, PIECE_BYTES):
                await came.update(piece)
                count += 1
                if not await _do(self._client.set(_data(upload, count - 1), piece, ABANDONED_SECONDS)):
                    raise Full("memcached did not store a piece")
            for number in range(count):
                if not await _do(self._client.touch(_data(upload, number), 0)):
                    raise Full(f"memcached lost a piece of {id} before its end: it is full")
            head = Head.of(came, headers, upload, count, await self._take_place(id))
            row = head.encode()
            if len(row) > HEAD_MAX_BYTES:
                raise InvalidRequest(f"the headers of a blob have at most {HEAD_MAX_BYTES} bytes here")
        except BaseException:
            # What cannot be deleted expires.
            with suppress(HoldfastError):
                await self._delete_pieces(upload, count)
            raise
        # When the reply is lost the pieces stay: if the head was added they are needed.
        if await _do(self._client.add(_head(id), row)):
            return True
        winner = await self.find(id)
        if winner is not None and winner.upload == upload:
            return True
        await self._delete_pieces(upload, count)
        return False

    async def _take_place(self, id: str) -> int:
        """A place in the list, with the id in it. Places that are taken, after the counter was lost, are passed by."""
        await _do(self._client.add(_COUNTER, b"0"))
        while True:
            place = await _do(self._client.incr(_COUNTER))
            if place is None:
                raise Unavailable("memcached lost its counter")
            if await _do(self._client.add(_place(place), id.encode("ascii"))):
                return place

    async def _delete_pieces(self, upload: str, count: int) -> None:
        for number in range(count):
            await _do(self._client.delete(_data(upload, number)))

    async def pieces(self, id: str, head: Head) -> AsyncGenerator[bytes | None, None]:
        for number in range(head.pieces):
            yield await _do(self._client.get(_data(head.upload, number)))

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        counter: bytes | None = await _do(self._client.get(_COUNTER))
        last = int(counter or b"0")
        for start in range(1, last + 1, _PAGE_IDS):
            places = range(start, min(start + _PAGE_IDS, last + 1))
            listed = await _do(self._client.multi_get(*map(_place, places)))
            names = {place: name.decode("ascii") for place, name in zip(places, listed, strict=True) if name}
            keys = [_head(name) for name in dict.fromkeys(names.values())]
            rows = dict(zip(keys, await _do(self._client.multi_get(*keys)), strict=True)) if keys else {}
            heads = {place: rows[_head(name)] for place, name in names.items()}
            yield [names[place] for place, row in heads.items() if row and Head.decode(row).place == place]

    async def delete(self, id: str) -> None:
        found = await self.find(id)
        if found is not None:
            await _do(self._client.delete(_head(id)))
            await _do(self._client.delete(_place(found.place)))
            await self._delete_pieces(found.upload, found.pieces)

    async def close(self) -> None:
        await self._client.close()
        # The connections are closed in the next turn of the loop, and this may be its last.
        await asyncio.sleep(0)


async def _do(command: Awaitable[T]) -> T:
    """One command, to its end even when the caller is cancelled: the client would hand a connection with half an
    answer on it to the next. memcached's errors as ours."""
    work = asyncio.ensure_future(command)
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        if not work.cancelled():
            work.exception()
        raise
    except ClientException as error:
        if "out of memory" in str(error).lower():
            raise Full("memcached has no memory left") from None
        raise Unavailable(f"memcached: {error}") from None
    except (OSError, EOFError) as error:
        raise Unavailable(f"memcached: {error}") from None


def _head(id: str) -> bytes:
    return f"sos:head:{id}".encode("ascii")


def _data(upload: str, number: int) -> bytes:
    return f"sos:data:{upload}:{number}".encode("ascii")


def _place(number: int) -> bytes:
    return f"sos:place:{number}".encode("ascii")
