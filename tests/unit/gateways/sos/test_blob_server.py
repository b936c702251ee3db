"""The blob server's routes, statuses, fields and headers, to the letter."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from holdfast.asgi.messages import Message
from holdfast.core.errors import Unavailable
from holdfast.gateways.sos.blob_server import BlobServer
from holdfast.gateways.sos.blobs import BlobStore
from holdfast.testing.blob_suite import BlobSuite
from holdfast.testing.memory_blobs import MemoryBlobs
from tests.unit.gateways.sos.asgi_client import call, started


@pytest.fixture
def store() -> MemoryBlobs:
    return MemoryBlobs()


@pytest.fixture
def peer(store: MemoryBlobs) -> MemoryBlobs:
    return MemoryBlobs(store.blobs)


class TestMemoryBlobs(BlobSuite):
    """What the other tests stand on passes the suite itself."""


def server(store: MemoryBlobs, secret: str = "") -> BlobServer:
    @asynccontextmanager
    async def opened() -> AsyncIterator[BlobStore]:
        yield store

    return BlobServer(opened, secret)


@pytest.fixture
async def app(store: MemoryBlobs) -> AsyncIterator[BlobServer]:
    app = server(store)
    async with started(app):
        yield app


@pytest.mark.parametrize("error", [Unavailable("the database is away"), ValueError("a bug")])
async def test_a_server_that_cannot_start_says_so(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """In a line, unless it is a bug. It never goes on with nothing open."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[BlobStore]:
        if error.args:
            raise error
        yield MemoryBlobs()

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    await BlobServer(opened)({"type": "lifespan"}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert ("the database is away" in caplog.text, "Traceback" in caplog.text) in [(True, False), (False, True)]


async def test_alive(app: BlobServer) -> None:
    reply = await call(app, "GET", "/alive")
    assert (reply.status, reply.body) == (200, b"alive")


async def test_the_answer_to_a_post_has_its_fields_in_order(app: BlobServer) -> None:
    reply = await call(app, "POST", "/blob/abc123", [b"hello, ", b"world"])
    assert (reply.status, reply.body) == (200, b'{"id":"abc123","size":12,"status":"OK"}')


@pytest.mark.parametrize("path", ["/blobs", "/blob"])
async def test_lists(app: BlobServer, store: MemoryBlobs, path: str) -> None:
    assert (await call(app, "GET", path)).body == b"[]"
    for number in range(250):
        store.blobs[f"id{number}"] = (b"", {})
    expected = "[" + ",".join(f'"id{number}"' for number in range(250)) + "]"
    reply = await call(app, "GET", path)
    assert (reply.status, reply.body.decode(), reply.ended) == (200, expected, True)


async def test_extra_headers_come_back_and_the_type_twice(app: BlobServer) -> None:
    sent = {"X-Mime-Type": "image/png", "X-Name": "caf\xe9", "Accept": "none", "Authorization": "Bearer private"}
    assert (await call(app, "POST", "/blob/a", b"png", sent)).status == 200
    for method, body in (("GET", b"png"), ("HEAD", b"")):
        reply = await call(app, method, "/blob/a")
        assert (reply.status, reply.body) == (200, body)
        assert reply.headers == {
            "x-mime-type": "image/png", "x-name": "caf\xe9", "content-type": "image/png", "content-length": "3",
        }  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_missing_blob_is_404(app: BlobServer, method: str) -> None:
    assert (await call(app, method, "/blob/nothing")).status == 404


async def test_an_empty_blob(app: BlobServer) -> None:
    assert (await call(app, "POST", "/blob/e", b"")).body == b'{"id":"e","size":0,"status":"OK"}'
    reply = await call(app, "GET", "/blob/e")
    assert (reply.status, reply.body, reply.ended) == (200, b"", True)


async def test_ids_are_immutable(app: BlobServer) -> None:
    for status, body in ((200, b"one"), (200, b"one"), (409, b"two")):
        assert (await call(app, "POST", "/blob/x", body)).status == status
    assert (await call(app, "GET", "/blob/x")).body == b"one"


@pytest.mark.parametrize("id", ["A", "foo-bar", "a.b", "a/b", "a%2fb", "..", "x" * 201, "a\n", "\xe9"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
async def test_what_is_no_id_is_refused(app: BlobServer, store: MemoryBlobs, id: str, method: str) -> None:
    reply = await call(app, method, f"/blob/{id}", b"")
    assert reply.status in (404, 500)
    assert store.blobs == {}
    if "/" not in id and method != "HEAD":
        assert reply.body == b"alphanumeric IDs only\n"


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/"), ("POST", "/blobs"), ("PUT", "/blob/a"), ("GET", "/blob/"), ("POST", "/alive")]
)
async def test_everything_else_is_404(app: BlobServer, method: str, path: str) -> None:
    reply = await call(app, method, path)
    assert reply.status == (500 if path == "/blob/" else 404)


async def test_nothing_is_stored_of_a_client_that_leaves(app: BlobServer, store: MemoryBlobs) -> None:
    reply = await call(app, "POST", "/blob/a", b"half", {"content-length": "8"}, gone=True)
    assert (reply.status, store.blobs) == (0, {})
    assert (await call(app, "POST", "/blob/a", b"half", {"content-length": "8"})).status == 400
    assert store.blobs == {}


async def test_a_full_server_says_so(app: BlobServer, store: MemoryBlobs) -> None:
    store.full = True
    assert (await call(app, "POST", "/blob/a", b"1")).status == 507


async def test_too_many_headers_are_refused(app: BlobServer) -> None:
    assert (await call(app, "POST", "/blob/a", b"1", {"X-Long": "v" * 70_000})).status == 400


async def test_an_answer_that_breaks_off_breaks_the_connection(app: BlobServer, store: MemoryBlobs) -> None:
    store.blobs["a"] = (bytes(200_000), {})
    store.breaks_after = 0
    assert (await call(app, "GET", "/blob/a")).status == 503
    store.breaks_after = 100_000
    with pytest.raises(Unavailable):
        await call(app, "GET", "/blob/a")


async def test_delete(app: BlobServer, store: MemoryBlobs) -> None:
    await call(app, "POST", "/blob/a", b"1")
    for _ in range(2):
        reply = await call(app, "DELETE", "/blob/a")
        assert (reply.status, reply.body) == (200, b'{"id":"a","status":"OK"}')
    assert store.blobs == {}


async def test_the_secret_guards_all_but_alive(store: MemoryBlobs) -> None:
    app = server(store, "s3cret")
    async with started(app):
        assert (await call(app, "GET", "/alive")).status == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "s3cret"}):
            for method, path in (("GET", "/blobs"), ("GET", "/blob/a"), ("POST", "/blob/a"), ("DELETE", "/blob/a")):
                assert (await call(app, method, path, b"1", headers)).status == 401
        assert store.blobs == {}
        good = {"Authorization": "Bearer s3cret", "X-Name": "n"}
        assert (await call(app, "POST", "/blob/a", b"1", good)).status == 200
        assert store.blobs["a"] == (b"1", {"x-name": "n"})
