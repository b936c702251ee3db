"""The API server: what clients speak to, on two ports that can be guarded apart.

    POST /upload                     200 {"id":...,"size":...,"status":"OK"}, 500 {"error":"upload failed"}
    GET, HEAD /fetch/{id}[.ext]      200 the bytes with the `X-*` headers of the upload, 404

With an upload token, uploads need it, as `Authorization: Bearer`; else they are answered 401. A download that no server
could be asked for is answered 503, since it may be there, and one that is wrong on every server 502.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager

from holdfast.core.errors import Corrupt, HoldfastError, NotFound
from holdfast.gateways.sos.asgi import JSON, Application, Exchange
from holdfast.gateways.sos.blob_server import stored
from holdfast.gateways.sos.blobs import is_id
from holdfast.gateways.sos.fetch import Fetcher
from holdfast.gateways.sos.upload import Uploader

MISSING = b"Invalid method or location."
UPLOAD_FAILED = b'{"error":"upload failed"}'
UNAUTHORIZED = b'{"error":"unauthorized"}'

_LOGGER = logging.getLogger(__name__)


class UploadServer(Application[Uploader]):
    """The upload service as a plain ASGI application."""

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[Uploader]], token: str = "") -> None:
        super().__init__(open)
        self._token = token

    async def serve(self, opened: Uploader, exchange: Exchange) -> None:
        if (exchange.method, exchange.path) != ("POST", "/upload"):
            await exchange.drain()
            return await exchange.answer(404, MISSING)
        if self._token and not exchange.bears(self._token):
            await exchange.drain()
            return await exchange.answer(401, UNAUTHORIZED, JSON, {"www-authenticate": "Bearer"})
        uploaded = await opened.upload(exchange.body.stream(), exchange.extra_headers)
        return await exchange.answer(200, stored(uploaded.id, uploaded.size), JSON)

    async def failed(self, exchange: Exchange, error: HoldfastError) -> None:
        _LOGGER.warning("an upload failed: %s: %s", error.code, error)
        await exchange.answer(500, UPLOAD_FAILED, JSON)


class DownloadServer(Application[Fetcher]):
    """The download service as a plain ASGI application."""

    async def serve(self, opened: Fetcher, exchange: Exchange) -> None:
        head, _, name = exchange.path.rpartition("/")
        if head != "/fetch" or not name or exchange.method not in ("GET", "HEAD"):
            await exchange.drain()
            return await exchange.answer(404, MISSING)
        name = name.partition(".")[0]
        if not is_id(name):
            raise NotFound(f"{name!r} is no id")
        if exchange.method == "HEAD":
            size, headers = await opened.head(name)
            return await exchange.answer(200, headers=_headers(headers, size), type=_type(headers))
        file = await opened.open(name)
        return await exchange.stream(_headers(file.headers, file.size), file.pieces)

    async def failed(self, exchange: Exchange, error: HoldfastError) -> None:
        if isinstance(error, NotFound):
            return await exchange.answer(404)
        _LOGGER.warning("%s %s failed: %s: %s", exchange.method, exchange.path, error.code, error)
        if isinstance(error, Corrupt):
            return await exchange.answer(502, b"no blob server has it right\n")
        return await exchange.answer(
            503, b"a blob server that may have it does not answer\n", headers={"retry-after": "5"}
        )


def _headers(extra: Mapping[str, str], size: int | None) -> dict[str, str]:
    length = {} if size is None else {"content-length": str(size)}
    return {**extra, "content-type": _type(extra), **length}


def _type(extra: Mapping[str, str]) -> str:
    return extra.get("x-mime-type", "") or "application/octet-stream"
