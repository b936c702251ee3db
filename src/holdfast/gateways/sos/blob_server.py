"""The blob server: a name, and the bytes that it holds.

    GET  /alive              200 `alive`
    GET  /blobs, GET /blob   200 JSON array of every id
    GET, HEAD /blob/{id}     200 the bytes with the `X-*` headers that were saved, 404
    POST /blob/{id}          200 {"id":...,"size":...,"status":"OK"}; 409 when the id holds other bytes
    DELETE /blob/{id}        200, there or not
    POST /batch/put, /get    200, many at once: see `batch`

`X-Mime-Type` is answered as Content-Type too. With a shared secret, everything but /alive needs it, as
`Authorization: Bearer`. An id that is none is answered 500 "alphanumeric IDs only", as the original does.
"""

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

import msgspec

from holdfast.core.errors import AlreadyExists, Full, HoldfastError, InvalidName, InvalidRequest, NotFound, Unavailable
from holdfast.gateways.sos import batch
from holdfast.gateways.sos.asgi import JSON, Application, Exchange
from holdfast.gateways.sos.blobs import BlobInfo, BlobStore, SmallBlob, check_headers, check_id, headers_bytes

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
        if path in _BATCHES and method == "POST":
            data = await exchange.body.read(batch.MESSAGE_MAX_BYTES)
            return await exchange.answer(200, await _BATCHES[path](opened, data), batch.CONTENT_TYPE)
        head, slash, name = path.rpartition("/")
        if (head, slash) != ("/blob", "/") or method not in _VERBS:
            await exchange.drain()
            return await exchange.answer(404, MISSING)
        check_id(name)
        await _VERBS[method](opened, name, exchange)
        return None

    async def failed(self, exchange: Exchange, error: HoldfastError) -> None:
        status = _status(error)
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
    check_headers(headers)
    size = await store.put(id, exchange.body.stream(), headers)
    await exchange.answer(200, stored(id, size), JSON)


async def _delete(store: BlobStore, id: str, exchange: Exchange) -> None:
    await store.delete(id)
    await exchange.answer(200, msgspec.json.encode({"id": id, "status": "OK"}), JSON)


async def _put_many(store: BlobStore, data: bytes) -> bytes:
    blobs = batch.decode_blobs(data)
    answer: list[batch.Put] = []
    taken: list[SmallBlob] = []
    for blob in blobs:
        try:
            check_id(blob.id)
            check_headers(blob.headers)
        except HoldfastError as error:
            answer.append(_refused(blob.id, error))
        else:
            answer.append(batch.Put(blob.id, 200, len(blob.data)))
            taken.append(blob)
    outcomes = iter(await store.put_many(taken))
    for place, put in enumerate(answer):
        if put.status == 200 and isinstance(outcome := next(outcomes), HoldfastError):
            answer[place] = _refused(put.id, outcome)
    return batch.encode(answer)


def _refused(id: str, error: HoldfastError) -> batch.Put:
    return batch.Put(id, _status(error), 0, str(error))


async def _get_many(store: BlobStore, data: bytes) -> bytes:
    answer: list[batch.Got] = []
    left = batch.BATCH_MAX_BYTES
    for name in batch.decode_ids(data):
        try:
            check_id(name)
            blob = await store.open(name)
            async with aclosing(blob.pieces):
                weight = blob.info.size + headers_bytes(blob.info.headers)
                if blob.info.size > batch.SMALL_MAX_BYTES or weight > left:
                    answer.append(batch.Got(name, batch.ALONE))
                    continue
                body = b"".join([bytes(piece) async for piece in blob.pieces])
        except HoldfastError as error:
            answer.append(batch.Got(name, _status(error)))
            continue
        left -= weight
        answer.append(batch.Got(name, 200, dict(blob.info.headers), body))
    return batch.encode(answer)


_BATCHES = {batch.PUT_PATH: _put_many, batch.GET_PATH: _get_many}

_VERBS = {"GET": _get, "HEAD": _head, "POST": _post, "DELETE": _delete}


def _status(error: HoldfastError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def stored(id: str, size: int) -> bytes:
    """The answer to a successful upload, at both servers. Its fields are in this order."""
    return msgspec.json.encode({"id": id, "size": size, "status": "OK"})


def _headers(info: BlobInfo) -> dict[str, str]:
    return {**info.headers, "content-type": info.headers.get("x-mime-type", "") or "application/octet-stream"}


async def _as_json(store: BlobStore) -> AsyncGenerator[bytes, None]:
    """The ids as a JSON array, page by page. They need no escaping."""
    before = "["
    async for page in store.ids():
        if page:
            yield (before + ",".join(f'"{name}"' for name in page)).encode("ascii")
            before = ","
    yield b"[]" if before == "[" else b"]"
