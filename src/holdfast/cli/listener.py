"""A further port of a worker: an ASGI application behind an HTTP/1.1 server in the worker's own event loop.

Every worker runs one on the same port (SO_REUSEPORT), and the kernel deals the connections out. So what is served there
shares the worker's open store, and works the same under a supervisor and under any other ASGI server. aiohttp does the
protocol; this is the way from its requests to ASGI messages and back.

Rules. An answer that was not sent to its end breaks the connection. A client that is gone looks to the application as
ASGI says, and is never an end of its body.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError, Unavailable
from holdfast.core.limits import KIB

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

# Requests in flight are given this long when the worker stops, and then cancelled: less than the supervisor gives the
# worker.
DRAIN_SECONDS = 25.0

# Longer than a reverse proxy keeps a connection that nobody uses.
KEEP_ALIVE_SECONDS = 75.0

# Connections that wait to be accepted.
BACKLOG_COUNT = 1024

# A message of a body; twice this may be buffered.
_READ_BYTES = 128 * KIB

# Whoever waits for a client to leave is told within this; whoever sends notices at once.
_LOOK_SECONDS = 1.0

_RETRY_SECONDS = 1.0
_SERVER = "Holdfast"
_LOGGER = logging.getLogger(__name__)

# Of requests that are no HTTP aiohttp would tell with a traceback each; whoever sends them is told by a 400.
_PROTOCOL_LOGGER = logging.getLogger(f"{__name__}.protocol")
_PROTOCOL_LOGGER.setLevel(logging.CRITICAL)


def check_free(host: str, port: int) -> None:
    """Raises Unavailable when another program has the port: workers, who share it, would not notice."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from None


class Listener:
    """Serves an application that needs no lifespan."""

    def __init__(
        self, application: Application, host: str, port: int, tls: ssl.SSLContext | None, clock: Clock
    ) -> None:
        self._application = application
        self._host = host
        self._port = port
        self._tls = tls
        self._clock = clock
        self._requests: set[asyncio.Task[Any]] = set()
        """In flight."""

    async def run(self) -> None:
        """Serve, or wait for the port, until cancelled; then requests in flight are let end. Who cancels it again does
        not wait for them."""
        http = web.Server(
            self._handle,
            logger=_PROTOCOL_LOGGER,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            read_bufsize=_READ_BYTES,
        )
        loop = asyncio.get_running_loop()
        while True:
            try:
                server = await loop.create_server(
                    http, self._host, self._port, ssl=self._tls, backlog=BACKLOG_COUNT, reuse_port=True
                )
            except OSError as error:
                _LOGGER.error("nothing is served on %s:%d: %s", self._host, self._port, error.strerror)
                if error.errno != errno.EADDRINUSE:
                    return
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            try:
                await asyncio.Event().wait()
            finally:
                server.close()
                http.pre_shutdown()
                await self._drain()
                await http.shutdown(DRAIN_SECONDS)

    async def _drain(self) -> None:
        """Until no request is in flight.

        `web.Server.shutdown` would wait for them, too, but by a future that a request sets when it ends: where both are
        cancelled at once, as at the end of a loop, that is an InvalidStateError.
        """
        if self._requests:
            _, late = await asyncio.wait(self._requests, timeout=DRAIN_SECONDS)
            for request in late:
                request.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        exchange = _Exchange(request, self._clock)
        task = asyncio.current_task()
        assert task is not None
        self._requests.add(task)
        task.add_done_callback(self._requests.discard)
        try:
            await self._application(exchange.scope(), exchange.receive, exchange.send)
        except (HoldfastError, ConnectionError):
            pass  # the application has said what broke off; of a client that left there is nothing to say
        except Exception:  # the top of a request: a bug, which the client sees as a broken connection
            _LOGGER.exception("a request failed")
        finally:
            if not exchange.ended and request.transport is not None:
                request.transport.abort()
        return exchange.response


class _Exchange:
    """One request as ASGI messages."""

    def __init__(self, request: web.BaseRequest, clock: Clock) -> None:
        self._request = request
        self._clock = clock
        self._awaited = request.headers.get("Expect", "").lower() == "100-continue"
        self._whole = False
        self.response = web.StreamResponse()
        self.ended = False

    def scope(self) -> dict[str, Any]:
        request = self._request
        target, _, query = request.raw_path.partition("?")
        transport = request.transport
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": f"{request.version.major}.{request.version.minor}",
            "method": request.method,
            "scheme": request.scheme,
            "path": unquote(target),
            "raw_path": target.encode("utf-8", "surrogateescape"),
            "query_string": query.encode("utf-8", "surrogateescape"),
            "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.raw_headers],
            "client": _address(transport, "peername"),
            "server": _address(transport, "sockname"),
        }

    async def receive(self) -> Message:
        """The next piece of the body; behind it, that the client has left, once it has."""
        while self._whole:
            if self._request.transport is None or self._request.transport.is_closing():
                return {"type": "http.disconnect"}
            await self._clock.sleep(_LOOK_SECONDS)
        content = self._request.content
        try:
            if self._awaited:
                self._awaited = False
                await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                # It is no part of the answer: without one an error can still be told.
                self._request.writer.output_size = 0
            piece = await content.readany()
        except (ConnectionError, web.RequestPayloadError, HttpProcessingError):
            return {"type": "http.disconnect"}
        self._whole = content.at_eof()
        return {"type": "http.request", "body": piece, "more_body": not self._whole}

    async def send(self, message: Message) -> None:
        response = self.response
        if message["type"] == "http.response.start":
            response.set_status(message["status"])
            for name, value in message["headers"]:
                response.headers.add(name.decode("latin-1"), value.decode("latin-1"))
            response.headers.setdefault("Server", _SERVER)
            if response.headers.get("Connection") == "close":
                response.force_close()
            await response.prepare(self._request)
            return
        body = message.get("body", b"")
        if not message.get("more_body", False):
            await response.write_eof(body)
            self.ended = True
        elif body:
            await response.write(body)


def _address(transport: asyncio.Transport | None, which: str) -> tuple[str, int] | None:
    found = transport.get_extra_info(which) if transport is not None else None
    return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None
