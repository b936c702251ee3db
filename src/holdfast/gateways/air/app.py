"""The air gateway as a plain ASGI application: check, route, serve, answer.

Rules. The application keeps nothing between requests. No answer is begun before its status is certain. A client that is
gone is not answered, and what it was uploading is not stored. Every answer says how long it took.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote_to_bytes

from holdfast.asgi.body import Body, announced_length
from holdfast.asgi.errors import ClientGone
from holdfast.asgi.messages import Receive, Scope, Send
from holdfast.asgi.sending import Sender
from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError
from holdfast.gateways.air.access import check_access
from holdfast.gateways.air.call import SUCCESS, Answer, Call, json_answer
from holdfast.gateways.air.delete_object import delete_object
from holdfast.gateways.air.errors import AirError, from_holdfast
from holdfast.gateways.air.get_object import get_object
from holdfast.gateways.air.list_bucket import list_bucket
from holdfast.gateways.air.put_object import put_object
from holdfast.objects.store import Store

Verb = Callable[[Call], Awaitable[Answer]]

# By the first part of the path: the methods, the verb, and whether it is about a name.
ROUTES: Mapping[str, tuple[tuple[str, ...], Verb, bool]] = {
    "put": (("POST",), put_object, True),
    "get": (("GET", "HEAD"), get_object, True),
    "list": (("GET",), list_bucket, False),
    "delete": (("DELETE",), delete_object, True),
}

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

    __slots__ = ("_air", "_body", "_headers", "_scope", "_sender", "_started")

    def __init__(self, air: Air, scope: Scope, receive: Receive, send: Send) -> None:
        self._air = air
        self._scope = scope
        self._sender = Sender(receive, send)
        self._started = air.services.clock.monotonic()
        self._headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            self._headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        self._body = Body(receive, announced_length(scope["http_version"], self._headers))

    async def run(self) -> None:
        """Serve and answer."""
        try:
            await self._deliver(await self._answer())
        except ClientGone:
            pass

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
        try:
            query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True, errors="strict"))
        except UnicodeDecodeError:
            raise AirError(400, "the query is not UTF-8") from None
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
        await self._sender.start(answer.status, headers)
        if answer.stream is None or head:
            await self._sender.end(b"" if head else answer.body)
            return
        try:
            await self._sender.stream(answer.body, answer.stream)
        except ClientGone:
            raise
        except HoldfastError as error:
            _LOGGER.warning("an answer broke off: %s: %s", error.code, error)
            raise

    def _seconds(self) -> float:
        return self._air.services.clock.monotonic() - self._started


def _text(raw: bytes) -> str:
    """A part of the path as sent. Raises AirError when it is no text."""
    try:
        return (unquote_to_bytes(raw) if b"%" in raw else raw).decode()
    except UnicodeDecodeError:
        raise AirError(400, "the path is not UTF-8") from None
