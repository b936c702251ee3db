"""Blobs in Redis.

    {prefix}ids                  sorted set of every id, all scores 0
    {prefix}head:<id>            JSON: size, SHA-256, headers, the upload that it was
    {prefix}data:<id>:<upload>   hash: piece number -> bytes

An upload writes its pieces into a hash of its own, which expires unless the upload is published: by one script, which
makes the hash stay, writes the head and adds the id, all or nothing. The keys of one blob are in several slots of a
Redis Cluster, so a cluster will not do. How much of it survives a crash is for the server's configuration to say;
`warnings_of` tells what it says.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError, RedisError

from holdfast.core.errors import Full, HoldfastError, Unavailable
from holdfast.core.ids import Buffer
from holdfast.gateways.sos.blobs import Sum
from holdfast.gateways.sos.pieces import ABANDONED_SECONDS, Head, cut

PREFIX = "sos:"

_PAGE_IDS = 1000

# Keys: head, data, ids. Arguments: head row, id, number of pieces, the piece when there is one and it was not sent yet.
# The head is our own when the client had to send the script again.
_PUBLISH = """
local found = redis.call('GET', KEYS[1])
if found == ARGV[1] then return 1 end
if found then return 0 end
if #ARGV == 4 then redis.call('HSET', KEYS[2], 0, ARGV[4])
elseif tonumber(ARGV[3]) > 0 and redis.call('PERSIST', KEYS[2]) == 0 then return -1 end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[3], 0, ARGV[2])
return 1
"""

_DELETE = """
local found = redis.call('GET', KEYS[1])
if not found then return 1 end
if found ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('ZREM', KEYS[3], ARGV[2])
return 1
"""


class RedisDatabase:
    """`Database` in one Redis database."""

    def __init__(self, client: Redis, prefix: str = PREFIX) -> None:
        self._client = client
        self._prefix = prefix
        self._publish = client.register_script(_PUBLISH)
        self._delete = client.register_script(_DELETE)

    async def find(self, id: str) -> Head | None:
        with _mapped():
            row = await self._client.get(self._head_key(id))
        return Head.decode(_bytes(row)) if row is not None else None

    async def insert(
        self, id: str, upload: str, body: AsyncIterator[Buffer], headers: Mapping[str, str], came: Sum
    ) -> bool:
        data = self._data_key(id, upload)
        count, last = 0, b""
        try:
            async for piece in cut(body):
                await came.update(piece)
                if count:
                    await self._write(data, count - 1, last)
                last, count = piece, count + 1
            if count > 1:
                await self._write(data, count - 1, last)
        except BaseException:
            if count > 1:
                # What cannot be deleted expires.
                with suppress(HoldfastError), _mapped():
                    await self._client.delete(data)
            raise
        head = Head.of(came, headers, upload, count)
        arguments: list[Any] = [head.encode(), id, count, *([last] if count == 1 else [])]
        with _mapped():
            # When the reply is lost the pieces stay: if they were published they are needed, else they expire.
            answer = await self._publish(keys=[self._head_key(id), data, self._ids_key], args=arguments)
        if answer == 1:
            return True
        if answer == -1:
            raise Unavailable(f"the upload of {id} took so long that its pieces expired")
        with _mapped():
            await self._client.delete(data)
        return False

    async def _write(self, data: str, number: int, piece: bytes) -> None:
        with _mapped():
            async with self._client.pipeline(transaction=False) as pipeline:
                pipeline.hset(data, str(number), piece)
                pipeline.expire(data, ABANDONED_SECONDS)
                await pipeline.execute()

    async def pieces(self, id: str, head: Head) -> AsyncGenerator[bytes | None, None]:
        for number in range(head.pieces):
            with _mapped():
                piece = await self._client.hget(self._data_key(id, head.upload), str(number))
            yield _bytes(piece) if piece is not None else None

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        start = b"-"
        while True:
            with _mapped():
                page = await self._client.zrangebylex(self._ids_key, start, b"+", start=0, num=_PAGE_IDS)
            if not page:
                return
            yield [_text(name) for name in page]
            start = b"(" + _bytes(page[-1])

    async def delete(self, id: str) -> None:
        while (found := await self.find(id)) is not None:
            keys = [self._head_key(id), self._data_key(id, found.upload), self._ids_key]
            with _mapped():
                if await self._delete(keys=keys, args=[found.encode(), id]):
                    return

    async def close(self) -> None:
        await self._client.aclose()

    def _head_key(self, id: str) -> str:
        return f"{self._prefix}head:{id}"

    def _data_key(self, id: str, upload: str) -> str:
        return f"{self._prefix}data:{id}:{upload}"

    @property
    def _ids_key(self) -> str:
        return f"{self._prefix}ids"


async def warnings_of(client: Redis) -> list[str]:
    """What the server's configuration does not promise. Raises Unavailable."""
    with _mapped():
        await client.ping()
    try:
        found = await client.config_get("append*") | await client.config_get("maxmemory*")
    except RedisError:
        return ["this Redis does not say how it is configured: what it promises is not known"]
    said = {_text(name): _text(value) for name, value in found.items()}
    warnings = []
    if said.get("appendonly") != "yes" or said.get("appendfsync") != "always":
        warnings.append("this Redis is relaxed: without `appendonly yes` and `appendfsync always` a crash loses blobs")
    if said.get("maxmemory", "0") != "0" and said.get("maxmemory-policy") != "noeviction":
        warnings.append(f"this Redis throws blobs away when it is full: {said.get('maxmemory-policy')}")
    return warnings


def _text(value: bytes | str | None) -> str:
    return value.decode() if isinstance(value, bytes) else value or ""


def _bytes(value: bytes | str) -> bytes:
    """The client was told not to decode; its types do not know."""
    assert isinstance(value, bytes)
    return value


@contextmanager
def _mapped() -> Generator[None, None, None]:
    """Redis' errors as ours."""
    try:
        yield
    except OutOfMemoryError as error:
        raise Full(f"Redis: {error}") from None
    except (RedisError, OSError) as error:
        raise Unavailable(f"Redis: {error}") from None
