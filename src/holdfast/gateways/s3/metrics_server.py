"""`/metrics` on a port of its own, without a process of its own.

Every worker runs this; the first to bind the port answers for all, since all count in the same directory, and when it
dies another takes the port within `_RETRY_SECONDS`. So it works the same under a supervisor and under a plain ASGI
server with several workers.
"""

import asyncio
import errno
import logging
from collections.abc import Callable

from holdfast.core.clock import Clock
from holdfast.core.limits import KIB

_RETRY_SECONDS = 1.0
_HEAD_MAX_BYTES = 8 * KIB
_EXCHANGE_SECONDS = 10.0
_LOGGER = logging.getLogger(__name__)
_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class MetricsServer:
    """Answers GET /metrics with what `render` returns, and nothing else. No authentication: bind it where it may be
    read."""

    def __init__(self, host: str, port: int, render: Callable[[], bytes], clock: Clock) -> None:
        self._host = host
        self._port = port
        self._render = render
        self._clock = clock

    async def run(self) -> None:
        """Serve, or wait for the port, until cancelled; the port is free then."""
        while True:
            try:
                server = await asyncio.start_server(self._exchange, self._host, self._port, limit=_HEAD_MAX_BYTES)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    _LOGGER.error("no metrics on %s:%d: %s", self._host, self._port, error.strerror)
                    return
                await self._clock.sleep(_RETRY_SECONDS)
                continue
            async with server:
                await server.serve_forever()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_EXCHANGE_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer(head))
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b" ")
        path = rest.partition(b" ")[0].partition(b"?")[0]
        if path != b"/metrics" or method not in (b"GET", b"HEAD"):
            return b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        body = self._render()
        text = f"HTTP/1.1 200 OK\r\ncontent-type: {_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        return text.encode("ascii") + (body if method == b"GET" else b"")
