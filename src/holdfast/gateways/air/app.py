"""The air gateway as a plain ASGI application: check, route, serve, answer.

Rules. The application keeps nothing between requests. No answer is begun before its status is certain; once a body is
on its way, an error can only break the connection, so that a short answer is never taken for a whole one. A client
that is gone is not answered, and what it was uploading is not stored. Every answer says how long it took.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_to_bytes

from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError
from holdfast.core.ids import Buffer
from holdfast.gateways.air.access import check_access
from holdfast.gateways.air.body import Body, ClientGone, Receive
from holdfast.gateways.air.call import SUCCESS, Answer, Call, json_answer
from holdfast.gateways.air.delete_object import delete_object
from holdfast.gateways.air.errors import AirError, from_holdfast
from holdfast.gateways.air.get_object import get_object
from holdfast.gateways.air.list_bucket import list_bucket
from holdfast.gateways.air.put_object import put_object
from holdfast.objects.store import Store

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Verb = Callable[[Call], Awaitable[Answer]]

SEND_TIMEOUT_SECONDS = 300.0
"""A client that takes nothing for so long is given up: what it keeps from us is memory, and a reader's buffers."""

# By the first part of the path: the methods, the verb, and whether it is about a name.
ROUTES: Mapping[str, tuple[tuple[str, ...], Verb, bool]] = {
    "put": (("POST",), put_object, True),
    "get": (("GET", "HEAD"), get_object, True),
    "list": (("GET",), list_bucket, False),
    "delete": (("DELETE",), delete_object, True),
}

_LENGTH = re.compile(r"[0-9]{1,19}")
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What the gateway serves from; made when the worker starts, by the composition root."""

    store: Store
    clock: Clock
    ready: Callable[[], Awaitable[None]]
    """Returns when requests can be served now; raises HoldfastError when not. Called for GET /."""


class Air:
    """The ASGI callable. Lifespan belongs to whoever made the services."""

    def __init__(self, services: Services, token: str | None) -> None:
        self.services = services
        self.token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"no {scope['type']} here")
        await _Exchange(self, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    __slots__ = ("_air", "_body", "_headers", "_receive", "_scope", "_send", "_started")

    def __init__(self, air: Air, scope: Scope, receive: Receive, send: Send) -> None:
        self._air = air
        self._scope = scope
        self._receive = receive
        self._send = send
        self._started = air.services.clock.monotonic()
        self._headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            self._headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        self._body = Body(receive, _content_length(scope["http_version"], self._headers))

    async def run(self) -> None:
        """Serve and answer."""
        try:
            answer = await self._answer()
        except ClientGone:
            return
        await self._deliver(answer)

    async def _answer(self) -> Answer:
        """The answer; every error is one, but ClientGone."""
        try:
            return await self._serve()
        except ClientGone:
            raise
        except AirError as error:
            failure = error
        except HoldfastError as error:
            failure = from_holdfast(error)
            if failure.status >= 500:
                _LOGGER.warning("a request failed: %s: %s", error.code, error)
        except Exception:  # the top of a request: whatever it is, the client gets an answer
            _LOGGER.exception("a request failed")
            failure = from_holdfast(HoldfastError())
        document = {"error": failure.message, "time_taken": self._seconds()}
        answer = json_answer(failure.status, document, failure.headers)
        if not await self._body.drain(waiting="expect" in self._headers) and self._scope["http_version"] < "2":
            answer.headers.append((b"connection", b"close"))
        return answer

    async def _serve(self) -> Answer:
        scope, services = self._scope, self._air.services
        path: bytes = scope.get("raw_path") or scope["path"].encode()
        route, _, rest = path.removeprefix(b"/").partition(b"/")
        if not route and not rest:
            return await self._health()
        check_access(self._air.token, scope, self._headers)
        methods, verb, named = ROUTES.get(_text(route), ((), None, False))
        bucket, slash, name = rest.partition(b"/")
        if verb is None or not bucket or bool(name) != named or bool(slash) != named:
            raise AirError(404, "nothing is here; see docs/air.md for the routes")
        if scope["method"] not in methods:
            raise AirError(405, "not with this method", ((b"allow", ", ".join(methods).encode("ascii")),))
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        call = Call(
            services.store,
            services.clock,
            self._started,
            scope["method"],
            _text(bucket),
            _text(name),
            query,
            self._headers,
            self._body,
        )
        return await verb(call)

    async def _health(self) -> Answer:
        """GET /: whether requests can be served. Tells nothing else, so anybody may ask."""
        if self._scope["method"] not in ("GET", "HEAD"):
            raise AirError(405, "not with this method", ((b"allow", b"GET, HEAD"),))
        await self._air.services.ready()
        return json_answer(200, {"message": SUCCESS, "time_taken": self._seconds()})

    async def _deliver(self, answer: Answer) -> None:
        head = self._scope["method"] == "HEAD"
        headers = [*answer.headers, (b"server-timing", b"total;dur=%.3f" % (self._seconds() * 1000))]
        length = answer.length
        if length is None and answer.stream is None:
            length = len(answer.body)
        if length is not None:
            headers.append((b"content-length", b"%d" % length))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if answer.stream is None or head:
            await self._send({"type": "http.response.body", "body": b"" if head else answer.body})
        else:
            await self._deliver_stream(answer.body, answer.stream)

    async def _deliver_stream(self, first: bytes, stream: AsyncGenerator[Buffer, None]) -> None:
        """Send pieces as they come, while the client is there."""
        gone = asyncio.ensure_future(self._wait_until_gone())
        try:
            await self._send_piece(first)
            async for piece in stream:
                if gone.done():
                    return
                await self._send_piece(piece if type(piece) is bytes else bytes(piece))
            await self._send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            return
        except HoldfastError as error:
            _LOGGER.warning("an answer broke off: %s: %s", error.code, error)
            raise
        finally:
            gone.cancel()
            await stream.aclose()

    async def _send_piece(self, piece: bytes) -> None:
        async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _seconds(self) -> float:
        return self._air.services.clock.monotonic() - self._started


def _content_length(http_version: str, headers: Mapping[str, str]) -> int | None:
    """None when it is not known. In HTTP/1 a request that says nothing of a body has none."""
    text = headers.get("content-length")
    if text is None and "transfer-encoding" not in headers and http_version < "2":
        return 0
    return int(text) if text is not None and _LENGTH.fullmatch(text) else None


def _text(raw: bytes) -> str:
    """A part of the path as sent. Raises AirError when it is no text."""
    try:
        return (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError:
        raise AirError(400, "the path is not UTF-8") from None
