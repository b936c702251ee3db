"""Many small blobs in one request: to the letter, bounded, and each with a fate of its own."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import aiohttp
import pytest

from holdfast.cli.listener import Listener
from holdfast.cli.system import SystemClock
from holdfast.core.errors import AlreadyExists, NotFound, Timeout, Unavailable
from holdfast.core.limits import KIB, MIB
from holdfast.gateways.sos import batch, blob_client
from holdfast.gateways.sos.asgi import Exchange
from holdfast.gateways.sos.blob_client import BlobClient, open_session
from holdfast.gateways.sos.blob_server import BlobServer
from holdfast.gateways.sos.blobs import HEADERS_MAX_BYTES, BlobStore, SmallBlob
from holdfast.gateways.sos.servers import Server
from holdfast.testing.blob_suite import refusal
from holdfast.testing.memory_blobs import MemoryBlobs
from holdfast.testing.old_sos import Fault, OldServer
from holdfast.testing.server import free_port
from tests.unit.gateways.sos.asgi_client import Reply, call, started
from tests.unit.gateways.sos.test_blob_server import server

PUT = bytes.fromhex("9193a361626381a6782d6e616d65a16ec4026869")
PUT_ANSWER = bytes.fromhex("9194a3616263ccc802a0")
GET = bytes.fromhex("91a3616263")
GET_ANSWER = bytes.fromhex("9194a3616263ccc881a6782d6e616d65a16ec4026869")


class Counting(BlobServer):
    """Knows what was asked of it."""

    def __init__(self, store: MemoryBlobs) -> None:
        @asynccontextmanager
        async def opened() -> AsyncIterator[BlobStore]:
            yield store

        super().__init__(opened)
        self.requests: list[str] = []

    async def serve(self, opened: BlobStore, exchange: Exchange) -> None:
        self.requests.append(f"{exchange.method} {exchange.path.rpartition('/')[0]}")
        await super().serve(opened, exchange)


@pytest.fixture
def store() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as opened:
        yield opened


@asynccontextmanager
async def served(app: BlobServer) -> AsyncIterator[str]:
    """The application behind a real port; its URL."""
    port = free_port()
    async with started(app):
        listening = asyncio.create_task(Listener(app, "127.0.0.1", port, None, SystemClock()).run())
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                break
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def post(app: BlobServer, path: str, body: bytes, **headers: str) -> Reply:
    return await call(app, "POST", path, body, headers)


async def test_the_messages_are_as_their_page_says(store: MemoryBlobs) -> None:
    app = server(store)
    async with started(app):
        put = await post(app, "/batch/put", PUT)
        assert (put.status, put.headers["content-type"], put.body) == (200, "application/msgpack", PUT_ANSWER)
        assert store.blobs == {"abc": (b"hi", {"x-name": "n"})}
        assert (await post(app, "/batch/get", GET)).body == GET_ANSWER
        for path in ("/batch/put", "/batch/get"):
            for body in (b"", b"<html>", PUT[:-1], PUT + b"x", b"\x91\x01", b"\xdd" + b"\xff" * 4):
                assert (await post(app, path, body)).status == 400
            assert (await call(app, "GET", path)).status == 404
        many = batch.encode(["a"] * (batch.BATCH_MAX_COUNT + 1))
        assert (await post(app, "/batch/get", many)).status == 400
        long = batch.encode([SmallBlob("a", {}, bytes(batch.MESSAGE_MAX_BYTES))])
        assert (await post(app, "/batch/put", long)).status == 400
        assert list(store.blobs) == ["abc"]


async def test_the_secret_guards_batches(store: MemoryBlobs) -> None:
    app = server(store, "secret")
    async with started(app):
        assert (await post(app, "/batch/put", PUT)).status == 401
        assert (await post(app, "/batch/put", PUT, authorization="Bearer secret")).status == 200


async def test_each_blob_has_the_status_that_it_would_have_alone(store: MemoryBlobs) -> None:
    store.blobs["taken"] = (b"other", {})
    app = server(store)
    blobs = [
        SmallBlob("UPPER", {}, b"1"),
        SmallBlob("taken", {}, b"2"),
        SmallBlob("headers", {"x-a": "b" * HEADERS_MAX_BYTES}, b"3"),
        SmallBlob("new", {}, b"4"),
    ]
    async with started(app):
        answer = await post(app, "/batch/put", batch.encode(blobs))
        puts = batch.decode_puts(answer.body, [blob.id for blob in blobs])
        assert [(put.status, put.size) for put in puts] == [(500, 0), (409, 0), (400, 0), (200, 1)]
        assert puts[0].message == "alphanumeric IDs only"
        store.full = True
        answer = await post(app, "/batch/put", batch.encode([SmallBlob("more", {}, b"5"), blobs[3]]))
        assert [put.status for put in batch.decode_puts(answer.body, ["more", "new"])] == [507, 200]
        answer = await post(app, "/batch/get", batch.encode(["new", "missing", "UPPER"]))
        gots = batch.decode_gots(answer.body, ["new", "missing", "UPPER"])
        assert [(got.status, got.data) for got in gots] == [(200, b"4"), (404, b""), (500, b"")]
        store.breaks_after = 0
        answer = await post(app, "/batch/get", batch.encode(["new"]))
        assert batch.decode_gots(answer.body, ["new"])[0].status == 503


async def test_an_answer_is_no_longer_than_a_batch(store: MemoryBlobs) -> None:
    """What is left out of it is asked for alone."""
    app = server(store)
    sizes = [batch.SMALL_MAX_BYTES + 1, *[batch.SMALL_MAX_BYTES] * (MIB // batch.SMALL_MAX_BYTES + 1), 5]
    names = [f"b{number}" for number in range(len(sizes))]
    store.blobs |= {name: (bytes(size), {}) for name, size in zip(names, sizes, strict=True)}
    async with started(app):
        answer = await post(app, "/batch/get", batch.encode(names))
    statuses = [got.status for got in batch.decode_gots(answer.body, names)]
    assert statuses == [413, *[200] * (MIB // batch.SMALL_MAX_BYTES), 413, 413]


async def test_headers_count_too(store: MemoryBlobs) -> None:
    app = server(store)
    names = [f"b{number}" for number in range(40)]
    store.blobs |= {name: (b"", {"x-a": "b" * (HEADERS_MAX_BYTES - 3)}) for name in names}
    async with started(app):
        answer = await post(app, "/batch/get", batch.encode(names))
    assert len(answer.body) < batch.MESSAGE_MAX_BYTES
    statuses = [got.status for got in batch.decode_gots(answer.body, names)]
    assert statuses == [200] * (MIB // HEADERS_MAX_BYTES) + [413] * (40 - MIB // HEADERS_MAX_BYTES)


def narrow(address: tuple[Any, ...]) -> socket.socket:
    """A socket that buffers little, as on a network where nothing was sent yet."""
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * KIB)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * KIB)
    return made


async def test_a_server_that_does_not_read_a_batch_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time-out for silence would begin when all is sent."""
    monkeypatch.setattr(blob_client, "ANSWER_MAX_SECONDS", 0.2)
    family = (socket.AF_INET, socket.SOCK_STREAM, 0)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=narrow)) as session:
        deaf = narrow(family)
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        client = BlobClient(session, Server(f"http://127.0.0.1:{deaf.getsockname()[1]}"))
        blobs = [SmallBlob(f"id{number}", {}, bytes(batch.SMALL_MAX_BYTES)) for number in range(12)]
        async with asyncio.timeout(30):
            await refusal(Timeout, client._put_batch(blobs))
        deaf.close()


async def test_what_is_asked_for_at_once_goes_together(store: MemoryBlobs, session: aiohttp.ClientSession) -> None:
    app = Counting(store)
    bodies = {f"id{number}": Random(number).randbytes(number) for number in range(200)} | {"large": bytes(70 * KIB)}
    headers = {"x-name": "caf\xe9 \x80"}
    async with served(app) as url:
        client = BlobClient(session, Server(url))
        await asyncio.gather(*(client.put(name, len(body), body, headers) for name, body in bodies.items()))
        assert {name: body for name, (body, _) in store.blobs.items()} == bodies
        assert store.blobs["id7"][1] == headers
        # One before any batch, at most a few of them, and the one that is not small.
        assert len(app.requests) <= 8
        app.requests.clear()
        found = await asyncio.gather(*(client.get_small(name) for name in bodies))
        expected = [(headers, body) if len(body) <= batch.SMALL_MAX_BYTES else None for body in bodies.values()]
        assert found == expected
        assert set(app.requests) == {"POST /batch"}
        assert len(app.requests) <= 4
        refusals = await asyncio.gather(
            refusal(AlreadyExists, client.put("id7", 5, b"other", {})),
            refusal(AlreadyExists, client.put("id8", 5, b"other", {})),
            refusal(NotFound, client.get_small("missing")),
        )
        assert [error.code for error in refusals] == ["already_exists", "already_exists", "not_found"]
        store.full = True
        await asyncio.gather(*(refusal(Unavailable, client.put(f"new{n}", 1, b"1", {})) for n in range(5)))


@pytest.mark.parametrize("fault", [Fault.NONE, Fault.ERROR_PAGE])
async def test_a_server_without_batches_is_asked_for_each(session: aiohttp.ClientSession, fault: Fault) -> None:
    async with OldServer().running() as old:
        client = BlobClient(session, Server(old.url))
        old.fault = fault
        puts = [client.put(f"id{number}", 1, b"%d" % number, {}) for number in range(10)]
        outcomes = await asyncio.gather(*puts, return_exceptions=True)
        if fault is Fault.NONE:
            assert outcomes == [None] * 10
            assert {name: body for name, (body, _) in old.blobs.items()} == {f"id{n}": b"%d" % n for n in range(10)}
        else:
            assert {type(outcome) for outcome in outcomes} == {Unavailable}
        assert old.requests.count("POST /batch/put") == 1
        old.requests.clear()
        assert await client.get_small("id1") is None
        assert old.requests == []


async def test_an_answer_for_other_blobs_counts_for_none(session: aiohttp.ClientSession) -> None:
    class Liar(BlobServer):
        async def serve(self, opened: BlobStore, exchange: Exchange) -> None:
            if exchange.path == "/batch/put":
                await exchange.answer(200, batch.encode([batch.Put("other", 200, 1)]), batch.CONTENT_TYPE)
            else:
                await super().serve(opened, exchange)

    store = MemoryBlobs()

    @asynccontextmanager
    async def opened() -> AsyncIterator[BlobStore]:
        yield store

    async with served(Liar(opened)) as url:
        client = BlobClient(session, Server(url))
        await asyncio.gather(*(client.put(f"id{number}", 1, b"1", {}) for number in range(10)))
        assert len(store.blobs) == 10


async def test_a_wrong_size_is_no_success(session: aiohttp.ClientSession) -> None:
    client = BlobClient(session, Server("http://127.0.0.1:1"))
    blob = SmallBlob("a", {}, b"12")
    assert client._outcome(blob, batch.Put("a", 200, 2)) is None
    for put in (batch.Put("a", 200, 1), batch.Put("a", 507, 2), batch.Put("a", 201, 2)):
        assert type(client._outcome(blob, put)) is Unavailable
