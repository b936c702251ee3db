"""One HTTP exchange over ASGI, as both servers need it: body in, answer out, errors told once.

Rules. A body that ends early raises, and never looks like its end. No answer is begun before its status is certain;
once a body is on its way, an error breaks the connection, so that a short answer is never taken for a whole one.
"""

import asyncio
import hmac
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, Generic, TypeVar

from holdfast.core.errors import HoldfastError, InvalidRequest, Timeout
from holdfast.core.ids import Buffer
from holdfast.core.limits import MIB

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = Mapping[str, str]
T = TypeVar("T")

# A sender that falls silent, or a receiver that takes nothing, is given up after this.
SILENCE_MAX_SECONDS = 60.0

# What is read and thrown away so that a refused client gets its answer instead of a reset connection.
DRAIN_MAX_BYTES = MIB

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_LOGGER = logging.getLogger(__name__)


class ClientGone(InvalidRequest):
    """The connection ended in the middle of the body. There is nobody to answer."""

    code = "client_gone"


class Exchange:
    """A request, and how to answer it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        # Of several of one name the first counts.
        pairs = reversed(scope["headers"])
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
        self.answered = False
        self._receive = receive
        self._send = send
        self._body_ended = False

    @property
    def extra_headers(self) -> dict[str, str]:
        """The `X-*` headers: they belong to the blob."""
        return {name: value for name, value in self.headers.items() if name.startswith("x-")}

    def bears(self, secret: str) -> bool:
        """Whether the request carries `Authorization: Bearer <secret>`."""
        given = self.headers.get("authorization", "")
        return hmac.compare_digest(given.encode("latin-1"), f"Bearer {secret}".encode("latin-1", "replace"))

    async def body(self) -> AsyncIterator[bytes]:
        """The body as it arrives; each message is asked for when the one before is dealt with. Raises ClientGone,
        InvalidRequest (shorter or longer than announced), Timeout."""
        announced = self.headers.get("content-length") if "transfer-encoding" not in self.headers else None
        received = 0
        while not self._body_ended:
            try:
                async with asyncio.timeout(SILENCE_MAX_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                raise Timeout("the sender of the body fell silent") from None
            if message["type"] != "http.request":
                raise ClientGone("the client closed the connection in the middle of the body")
            piece: bytes = message.get("body", b"")
            received += len(piece)
            self._body_ended = not message.get("more_body", False)
            if piece:
                yield piece
        if announced is not None and announced.isdigit() and received != int(announced):
            raise InvalidRequest(f"the body has {received} bytes, and {announced} were announced")

    async def whole_body(self, limit: int) -> bytes:
        """All of it. Raises InvalidRequest when it is longer, and as `body`."""
        pieces: list[bytes] = []
        left = limit
        async for piece in self.body():
            left -= len(piece)
            if left < 0:
                raise InvalidRequest(f"the body has more than {limit} bytes")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def drain(self) -> None:
        """Read on and forget, within bounds."""
        length = self.headers.get("content-length", "0")
        if self._body_ended or not length.isdigit() or int(length) > DRAIN_MAX_BYTES or "expect" in self.headers:
            return
        try:
            async for _ in self.body():
                pass
        except (InvalidRequest, Timeout):
            pass

    async def answer(self, status: int, body: bytes = b"", type: str = TEXT, headers: Headers | None = None) -> None:
        """A whole answer. A HEAD is answered as the GET would be, without the bytes."""
        await self._start(status, {"content-type": type, "content-length": str(len(body)), **(headers or {})})
        await self._send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})

    async def stream(self, headers: Headers, pieces: AsyncGenerator[Buffer, None]) -> None:
        """A 200 whose body goes out as it comes in. An empty one is right too. The first piece is awaited before the
        answer begins: what cannot be read at all is an error, not a broken 200."""
        async with aclosing(pieces):
            first = bytes(await anext(pieces, b""))
            await self._start(200, headers)
            await self._send_piece(first)
            async for piece in pieces:
                await self._send_piece(bytes(piece))
            await self._send({"type": "http.response.body", "body": b""})

    async def _start(self, status: int, headers: Headers) -> None:
        self.answered = True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _send_piece(self, piece: bytes) -> None:
        try:
            async with asyncio.timeout(SILENCE_MAX_SECONDS):
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except TimeoutError:
            raise ClientGone("the client takes nothing") from None


class Application(Generic[T]):
    """The ASGI callable: lifespan, and for each request `serve`, with what the lifespan opened."""

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._open = open
        self._opened: T | None = None

    async def serve(self, opened: T, exchange: Exchange) -> None:
        """Answer one request. Raises HoldfastError for `failed` to answer."""
        raise NotImplementedError

    async def failed(self, exchange: Exchange, error: HoldfastError) -> None:
        """Answer a request that could not be served."""
        raise NotImplementedError

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._exchange(Exchange(scope, receive, send))
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            raise NotImplementedError(f"no {scope['type']} here")

    async def _exchange(self, exchange: Exchange) -> None:
        if self._opened is None:
            await exchange.answer(503, b"starting or stopping")
            return
        try:
            await self.serve(self._opened, exchange)
        except ClientGone:
            pass
        except HoldfastError as error:
            if exchange.answered:
                _LOGGER.warning("%s %s broke off: %s: %s", exchange.method, exchange.path, error.code, error)
                raise
            await exchange.drain()
            await self.failed(exchange, error)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        manager = self._open()
        try:
            self._opened = await manager.__aenter__()
        except (HoldfastError, OSError) as error:
            _LOGGER.exception("the server could not start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._opened = None
        await manager.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})
