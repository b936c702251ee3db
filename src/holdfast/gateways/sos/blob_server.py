"""The blob server: a name, and the bytes that it holds.

    GET  /alive              200 `alive`
    GET  /blobs, GET /blob   200 JSON array of every id
    GET, HEAD /blob/{id}     200 the bytes with the `X-*` headers that were saved, 404
    POST /blob/{id}          200 {"id":...,"size":...,"status":"OK"}; 409 when the id holds other bytes
    DELETE /blob/{id}        200, there or not

`X-Mime-Type` is answered as Content-Type too. With a shared secret, everything but /alive needs it, as
`Authorization: Bearer`. An id that is none is answered 500 "alphanumeric IDs only", as the original does.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from holdfast.core.errors import AlreadyExists, Full, HoldfastError, InvalidName, InvalidRequest, NotFound, Unavailable
from holdfast.gateways.sos.asgi import JSON, Application, Exchange
from holdfast.gateways.sos.blobs import HEADERS_MAX_BYTES, BlobInfo, BlobStore, check_id

MISSING = b"404 - content is not hosted here."

_LOGGER = logging.getLogger(__name__)

# The first that fits. 507 and 503 both make an API server try the next blob server.
_STATUS: tuple[tuple[type[HoldfastError], int], ...] = (
    (InvalidName, 500),
    (NotFound, 404),
    (AlreadyExists, 409),
    (Full, 507),
    (Unavailable, 503),
    (InvalidRequest, 400),
)


class BlobServer(Application[BlobStore]):
    """The blob server as a plain ASGI application."""

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[BlobStore]], secret: str = "") -> None:
        super().__init__(open)
        self._secret = secret

    async def serve(self, opened: BlobStore, exchange: Exchange) -> None:
        method, path = exchange.method, exchange.path
        if path == "/alive" and method in ("GET", "HEAD"):
            return await exchange.answer(200, b"alive")
        if self._secret and not exchange.bears(self._secret):
            await exchange.drain()
            return await exchange.answer(401, b"the shared secret is missing or wrong")
        if path in ("/blobs", "/blob") and method == "GET":
            return await exchange.stream({"content-type": JSON}, _as_json(opened))
        head, slash, name = path.rpartition("/")
        if (head, slash) != ("/blob", "/") or method not in _VERBS:
            await exchange.drain()
            return await exchange.answer(404, MISSING)
        check_id(name)
        await _VERBS[method](opened, name, exchange)
        return None

    async def failed(self, exchange: Exchange, error: HoldfastError) -> None:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        if status >= 500 and not isinstance(error, InvalidName):
            _LOGGER.warning("%s %s failed: %s: %s", exchange.method, exchange.path, error.code, error)
        await exchange.answer(status, f"{error}\n".encode())


async def _get(store: BlobStore, id: str, exchange: Exchange) -> None:
    blob = await store.open(id)
    await exchange.stream({**_headers(blob.info), "content-length": str(blob.info.size)}, blob.pieces)


async def _head(store: BlobStore, id: str, exchange: Exchange) -> None:
    info = await store.info(id)
    headers = {**_headers(info), "content-length": str(info.size)}
    await exchange.answer(200, type=headers["content-type"], headers=headers)


async def _post(store: BlobStore, id: str, exchange: Exchange) -> None:
    headers = exchange.extra_headers
    if sum(len(name) + len(value) for name, value in headers.items()) > HEADERS_MAX_BYTES:
        raise InvalidRequest(f"the X-* headers have more than {HEADERS_MAX_BYTES} bytes")
    size = await store.put(id, exchange.body(), headers)
    await exchange.answer(200, stored(id, size), JSON)


async def _delete(store: BlobStore, id: str, exchange: Exchange) -> None:
    await store.delete(id)
    await exchange.answer(200, msgspec.json.encode({"id": id, "status": "OK"}), JSON)


_VERBS = {"GET": _get, "HEAD": _head, "POST": _post, "DELETE": _delete}


def stored(id: str, size: int) -> bytes:
    """The answer to a successful upload, at both servers. Its fields are in this order."""
    return msgspec.json.encode({"id": id, "size": size, "status": "OK"})


def _headers(info: BlobInfo) -> dict[str, str]:
    return {**info.headers, "content-type": info.headers.get("x-mime-type", "") or "application/octet-stream"}


async def _as_json(store: BlobStore) -> AsyncGenerator[bytes, None]:
    """The ids as a JSON array, batch by batch. They need no escaping."""
    before = "["
    async for batch in store.ids():
        if batch:
            yield (before + ",".join(f'"{name}"' for name in batch)).encode("ascii")
            before = ","
    yield b"[]" if before == "[" else b"]"
