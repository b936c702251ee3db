"""The API server's routes, statuses, fields and headers, to the letter."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from holdfast.gateways.sos import blob_client
from holdfast.gateways.sos.api_server import DownloadServer, UploadServer
from holdfast.gateways.sos.fetch import Fetcher
from holdfast.gateways.sos.upload import Uploader
from holdfast.testing.old_sos import Fault
from tests.unit.gateways.sos.asgi_client import Reply, call, started
from tests.unit.gateways.sos.world import CHUNK_BYTES, World, sha1, world


class Api:
    """Both services over one blob server."""

    def __init__(self, over: World, token: str = "") -> None:
        self.world = over
        self.old = over.old[0]

        @asynccontextmanager
        async def uploader() -> AsyncIterator[Uploader]:
            yield over.uploader

        @asynccontextmanager
        async def fetcher() -> AsyncIterator[Fetcher]:
            yield over.fetcher

        self.uploads = UploadServer(uploader, token)
        self.downloads = DownloadServer(fetcher)

    async def upload(self, body: bytes, headers: dict[str, str] | None = None) -> Reply:
        return await call(self.uploads, "POST", "/upload", body, headers)

    async def fetch(self, name: str, method: str = "GET") -> Reply:
        return await call(self.downloads, method, f"/fetch/{name}")


@pytest.fixture
async def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(blob_client, "SILENCE_MAX_SECONDS", 1.0)
    async with world(tmp_path, 1) as opened:
        yield opened


@pytest.fixture
async def api(one: World) -> AsyncIterator[Api]:
    made = Api(one)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(started(made.uploads))
        await stack.enter_async_context(started(made.downloads))
        yield made


async def test_an_upload_and_its_download(api: Api) -> None:
    reply = await api.upload(b"hello", {"X-Mime-Type": "text/x", "X-Name": "n", "Other": "o"})
    expected = b'{"id":"aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d","size":5,"status":"OK"}'
    assert (reply.status, reply.body, reply.headers["content-type"]) == (200, expected, "application/json")
    for name in (sha1(b"hello"), sha1(b"hello") + ".txt", sha1(b"hello") + ".tar.gz"):
        reply = await api.fetch(name)
        assert (reply.status, reply.body) == (200, b"hello")
        assert reply.headers == {
            "x-mime-type": "text/x", "x-name": "n", "content-type": "text/x", "content-length": "5",
        }  # fmt: skip


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("name", [sha1(b"nothing"), "foo", "FOO", "a-b", ".txt", "x" * 300])
async def test_what_is_not_there_is_404(api: Api, method: str, name: str) -> None:
    assert (await api.fetch(name, method)).status == 404


async def test_head(api: Api) -> None:
    await api.upload(bytes(2 * CHUNK_BYTES), {"X-Name": "large"})
    reply = await api.fetch(sha1(bytes(2 * CHUNK_BYTES)), "HEAD")
    assert (reply.status, reply.body, reply.headers["x-name"]) == (200, b"", "large")
    assert reply.headers["content-length"] == str(2 * CHUNK_BYTES)
    await api.upload(b"small")
    assert (await api.fetch(sha1(b"small"), "HEAD")).status == 200


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/upload"), ("POST", "/"), ("POST", "/upload/x"), ("POST", "/fetch/x"), ("GET", "/")]
)
async def test_everything_else_is_404(api: Api, method: str, path: str) -> None:
    for app in (api.uploads, api.downloads):
        reply = await call(app, method, path, b"x")
        assert (reply.status, reply.body) == (404, b"Invalid method or location.")


async def test_an_upload_that_nobody_took(api: Api) -> None:
    api.old.fault = Fault.FULL
    reply = await api.upload(b"data")
    assert (reply.status, reply.body) == (500, b'{"error":"upload failed"}')


async def test_a_server_that_does_not_answer_and_one_that_is_wrong(api: Api) -> None:
    api.old.blobs[sha1(b"right")] = b"wrong", {}
    assert (await api.fetch(sha1(b"right"))).status == 502
    api.old.fault = Fault.HANGS
    reply = await api.fetch(sha1(b"right"))
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")


async def test_a_client_that_leaves_is_not_answered(api: Api) -> None:
    reply = await call(api.uploads, "POST", "/upload", b"half", {"content-length": "8"}, gone=True)
    assert (reply.status, api.old.blobs) == (0, {})


async def test_a_token(one: World) -> None:
    api = Api(one, "t0ken")
    async with started(api.uploads):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "t0ken"}):
            reply = await api.upload(b"data", headers)
            assert (reply.status, reply.body) == (401, b'{"error":"unauthorized"}')
        assert api.old.requests == []
        assert (await api.upload(b"data", {"Authorization": "Bearer t0ken"})).status == 200
    assert api.old.blobs[sha1(b"data")][1] == {}, "the token is nobody else's"
