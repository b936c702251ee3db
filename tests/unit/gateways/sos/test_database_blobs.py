"""Redis, PostgreSQL and memcached pass the suite, as real servers; and what is theirs alone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from holdfast.core.clock import Randomness
from holdfast.core.errors import Corrupt, Full, NotFound, Unavailable
from holdfast.core.limits import MIB
from holdfast.gateways.sos.blobs import BlobStore
from holdfast.gateways.sos.database_blobs import Database, DatabaseBlobs
from holdfast.gateways.sos.memcached_database import LineClient, MemcachedDatabase, _do
from holdfast.gateways.sos.postgresql_database import PostgresqlDatabase
from holdfast.gateways.sos.redis_database import RedisDatabase, warnings_of
from holdfast.testing.blob_suite import BlobSuite, list_ids, pieces, read, refusal
from holdfast.testing.clock import SeededRandomness
from tests.unit.gateways.sos import databases

COMMAND_MAX_SECONDS = 60.0

_SEEDS = iter(range(10_000))


def chance() -> Randomness:
    """Another for each handle, as every process has its own."""
    return SeededRandomness(next(_SEEDS))


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Started when first asked for, stopped at the end."""
    with ExitStack() as stack:

        class Servers(dict[str, str]):
            def __missing__(self, name: str) -> str:
                start = getattr(databases, name)
                self[name] = url = stack.enter_context(start(tmp_path_factory.mktemp(name)))
                return str(url)

        yield Servers()


class DatabaseSuite(BlobSuite):
    """Over a real server, whose database is emptied before each test."""

    name: str

    @staticmethod
    def open(url: str) -> AbstractAsyncContextManager[Any]:
        """A handle on the database at `url`."""
        raise NotImplementedError

    @staticmethod
    async def empty(store: Any) -> None:
        raise NotImplementedError

    @pytest.fixture
    async def store(self, urls: dict[str, str]) -> AsyncIterator[BlobStore]:
        async with self.open(urls[self.name]) as store:
            await self.empty(store)
            yield store

    @pytest.fixture
    async def peer(self, urls: dict[str, str]) -> AsyncIterator[BlobStore]:
        async with self.open(urls[self.name]) as store:
            yield store


@asynccontextmanager
async def over(database: Database) -> AsyncIterator[DatabaseBlobs]:
    store = DatabaseBlobs(database, chance())
    try:
        yield store
    finally:
        await store.close()


# Redis


@asynccontextmanager
async def open_redis(url: str) -> AsyncIterator[DatabaseBlobs]:
    async with over(RedisDatabase(Redis.from_url(url))) as store:
        yield store


class TestRedis(DatabaseSuite):
    name = "redis"
    open = staticmethod(open_redis)

    @staticmethod
    async def empty(store: Any) -> None:
        await store._database._client.flushall()

    async def test_nothing_is_left_of_uploads_that_failed(self, store: Any, urls: dict[str, str]) -> None:
        await self.test_a_body_that_breaks_off_leaves_nothing(store)
        await self.test_a_cancelled_put_leaves_nothing(store)
        await self.test_other_bytes_are_refused(store, store)
        await self.test_of_many_at_once_one_wins(store, store)
        for name in await list_ids(store):
            await store.delete(name)
        async with Redis.from_url(urls["redis"]) as client:
            assert await client.keys("*") == []

    async def test_published_pieces_do_not_expire(self, store: Any, urls: dict[str, str]) -> None:
        for size in (10, 3 * MIB):
            await store.put(f"s{size}", pieces(bytes(size)), {})
        async with Redis.from_url(urls["redis"]) as client:
            assert [await client.ttl(key) for key in await client.keys("*")] == [-1] * 5

    async def test_what_the_database_changed_is_not_handed_out(self, store: Any, urls: dict[str, str]) -> None:
        for damage in (b"x" * MIB, None):
            await store.put("a", pieces(bytes(2 * MIB + 5)), {})
            async with Redis.from_url(urls["redis"]) as client:
                (data,) = await client.keys("sos:data:*")
                await (client.hset(data, "1", damage) if damage else client.hdel(data, "1"))
            await refusal(Corrupt if damage else Unavailable, read(store, "a"))
            await store.delete("a")


async def test_a_redis_without_memory_is_full_and_keeps_what_it_has(tmp_path: Path) -> None:
    with databases.redis(tmp_path, "--maxmemory", "8mb") as url:
        async with open_redis(url) as store:
            await store.put("first", pieces(bytes(MIB)), {})
            await refusal(Full, store.put("large", pieces(bytes(20 * MIB)), {}))
            await refusal(NotFound, store.info("large"))
            assert await list_ids(store) == ["first"]
            assert await read(store, "first") == bytes(MIB)


async def test_a_redis_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with databases.redis(tmp_path) as url:
            store = await stack.enter_async_context(open_redis(url))
            await store.put("a", pieces(b"1"), {})
            async with Redis.from_url(url) as client:
                assert await warnings_of(client) == []
        await refusal(Unavailable, store.info("a"))


async def test_a_relaxed_redis_is_called_so(tmp_path: Path) -> None:
    options = ("--appendfsync", "everysec", "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
    with databases.redis(tmp_path, *options) as url:
        async with Redis.from_url(url) as client:
            said = await warnings_of(client)
    assert "relaxed" in said[0]
    assert "allkeys-lru" in said[1]


# PostgreSQL


async def connect(url: str, timeout_seconds: float = COMMAND_MAX_SECONDS) -> PostgresqlDatabase:
    return await PostgresqlDatabase.connect(url, connections=4, timeout_seconds=timeout_seconds)


@asynccontextmanager
async def open_postgresql(url: str) -> AsyncIterator[DatabaseBlobs]:
    async with over(await connect(url)) as store:
        yield store


class TestPostgresql(DatabaseSuite):
    name = "postgresql"
    open = staticmethod(open_postgresql)

    @staticmethod
    async def empty(store: Any) -> None:
        await store._database._pool.execute("truncate sos_blob, sos_piece")

    async def test_nothing_is_left_of_uploads_that_failed(self, store: Any) -> None:
        await self.test_a_body_that_breaks_off_leaves_nothing(store)
        await self.test_a_cancelled_put_leaves_nothing(store)
        await self.test_other_bytes_are_refused(store, store)
        await self.test_of_many_at_once_one_wins(store, store)
        for name in await list_ids(store):
            await store.delete(name)
        assert await store._database._pool.fetchval("select count(*) from sos_piece") == 0

    async def test_what_the_database_changed_is_not_handed_out(self, store: Any) -> None:
        await store.put("a", pieces(bytes(2 * MIB)), {})
        await store._database._pool.execute("update sos_piece set data = $1 where number = 1", bytes(MIB - 1) + b"x")
        await refusal(Corrupt, read(store, "a"))

    async def test_a_command_that_is_not_answered_is_given_up(self, store: Any, urls: dict[str, str]) -> None:
        async with store._database._pool.acquire() as connection, connection.transaction():
            hurried = await connect(urls["postgresql"], timeout_seconds=0.2)
            await connection.execute("lock table sos_blob in access exclusive mode")
            await refusal(Unavailable, hurried.find("a"))
            await hurried.close()

    async def test_what_the_server_promises_is_asked(self, store: Any) -> None:
        assert await store._database.warnings() == []


async def test_a_postgresql_that_is_not_there_is_unavailable() -> None:
    await refusal(Unavailable, connect("postgresql://127.0.0.1:1/none"))


# memcached


@asynccontextmanager
async def open_memcached(url: str) -> AsyncIterator[DatabaseBlobs]:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    client = LineClient(address.hostname, address.port, connections=4, timeout_seconds=COMMAND_MAX_SECONDS)
    async with over(MemcachedDatabase(client)) as store:
        yield store


class TestMemcached(DatabaseSuite):
    name = "memcached"
    open = staticmethod(open_memcached)

    @staticmethod
    async def empty(store: Any) -> None:
        await store._database._client.flush_all()

    async def test_what_memcached_forgot_is_not_handed_out(self, store: Any) -> None:
        await store.put("a", pieces(bytes(2 * MIB)), {})
        head = await store._database.find("a")
        await store._database._client.delete(f"sos:data:{head.upload}:1".encode())
        await refusal(Unavailable, read(store, "a"))

    async def test_places_that_are_taken_are_passed_by(self, store: Any) -> None:
        for name in ("a", "b", "c"):
            await store.put(name, pieces(name.encode()), {})
        await store._database._client.delete(b"sos:places")
        await store.put("d", pieces(b"d"), {})
        assert await list_ids(store) == ["a", "b", "c", "d"]


async def test_a_memcached_without_memory_is_full(tmp_path: Path) -> None:
    with databases.memcached(tmp_path, "-M", "-m", "16") as url:
        async with open_memcached(url) as store:
            await store.put("first", pieces(bytes(MIB)), {})
            await refusal(Full, store.put("large", pieces(bytes(40 * MIB)), {}))
            assert await list_ids(store) == ["first"]
            assert await read(store, "first") == bytes(MIB)


async def test_a_memcached_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        with databases.memcached(tmp_path) as url:
            store = await stack.enter_async_context(open_memcached(url))
            await store.put("a", pieces(b"1"), {})
        await refusal(Unavailable, store.put("b", pieces(b"2"), {}))
        await refusal(Unavailable, store.info("a"))


async def test_a_memcached_that_hangs_is_unavailable() -> None:
    """For those who wait for a connection too, and in the middle of sending."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        client = LineClient("127.0.0.1", deaf.getsockname()[1], connections=2, timeout_seconds=0.1)
        async with over(MemcachedDatabase(client)) as store, asyncio.timeout(60):
            await asyncio.gather(*(refusal(Unavailable, store.info(f"id{number}")) for number in range(5)))
            # More than the kernel takes off its hands.
            await refusal(Unavailable, _do(client.set(b"key", bytes(64 * MIB))))
