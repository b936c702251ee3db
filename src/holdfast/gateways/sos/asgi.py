"""One HTTP exchange over ASGI, as both servers need it: body in, answer out, errors told once."""

import hmac
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Generic, TypeVar

from holdfast.asgi.body import Body, announced_length
from holdfast.asgi.errors import ClientGone
from holdfast.asgi.messages import Receive, Scope, Send
from holdfast.asgi.sending import Sender
from holdfast.core.errors import HoldfastError
from holdfast.core.ids import Buffer

Headers = Mapping[str, str]
T = TypeVar("T")

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

_LOGGER = logging.getLogger(__name__)


class Exchange:
    """A request, and how to answer it."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        # Of several of one name the first counts.
        pairs = reversed(scope["headers"])
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}
        self.body = Body(receive, announced_length(scope["http_version"], self.headers))
        self._sender = Sender(receive, send)
        self._closes = False

    @property
    def answered(self) -> bool:
        """The answer is on its way: what goes wrong now can only break it off."""
        return self._sender.started

    @property
    def extra_headers(self) -> dict[str, str]:
        """The `X-*` headers: they belong to the blob."""
        return {name: value for name, value in self.headers.items() if name.startswith("x-")}

    def bears(self, secret: str) -> bool:
        """Whether the request carries `Authorization: Bearer <secret>`."""
        given = self.headers.get("authorization", "")
        return hmac.compare_digest(given.encode("latin-1"), f"Bearer {secret}".encode("latin-1", "replace"))

    async def drain(self) -> None:
        """Read on and forget, within bounds; a connection with a rest of this body on it is not used again."""
        self._closes = not await self.body.drain(waiting="expect" in self.headers)

    async def answer(self, status: int, body: bytes = b"", type: str = TEXT, headers: Headers | None = None) -> None:
        """A whole answer. A HEAD is answered as the GET would be, without the bytes."""
        await self._start(status, {"content-type": type, "content-length": str(len(body)), **(headers or {})})
        await self._sender.end(b"" if self.method == "HEAD" else body)

    async def stream(self, headers: Headers, pieces: AsyncGenerator[Buffer, None]) -> None:
        """A 200 whose body goes out as it comes in. An empty one is right too. The first piece is awaited before the
        answer begins: what cannot be read at all is an error, not a broken 200."""
        async with aclosing(pieces):
            first = bytes(await anext(pieces, b""))
            await self._start(200, headers)
            await self._sender.stream(first, pieces)

    async def _start(self, status: int, headers: Headers) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        if self._closes:
            raw.append((b"connection", b"close"))
        await self._sender.start(status, raw)


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
            _LOGGER.error("the server cannot start: %s", error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        except Exception:  # a bug: without an answer some servers would go on, with nothing open
            _LOGGER.exception("the server cannot start")
            await send({"type": "lifespan.startup.failed", "message": "see the log"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._opened = None
        await manager.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})
