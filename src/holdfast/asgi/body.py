"""The body of a request as it arrives.

Rules. Nothing is read before somebody asks, so a client that waits for "100 Continue" is told so only when its body is
wanted. One message is asked for at a time: that is the back-pressure. A connection that ends early, a body that is not
as long as announced, and a sender that falls silent, all raise; none ever looks like the end of a body.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from holdfast.asgi.errors import ClientGone, SenderSilent
from holdfast.asgi.messages import Message, Receive
from holdfast.core.errors import InvalidRequest
from holdfast.core.limits import MIB
from holdfast.objects.errors import IncompleteBody

# A sender that falls silent for so long is given up. Longer than any retransmission that still succeeds.
SILENCE_MAX_SECONDS = 60.0

# What is read and thrown away so that a refused client gets its answer instead of a reset connection: the largest part
# that common clients send unless told otherwise (s5cmd 50 MiB, aws-cli and boto3 8 MiB).
DRAIN_MAX_BYTES = 64 * MIB
DRAIN_MAX_SECONDS = 5.0

_LENGTH = re.compile(r"[0-9]{1,19}")


def announced_length(http_version: str, headers: Mapping[str, str]) -> int | None:
    """What Content-Length says; None when it is not known. In HTTP/1 a request that says nothing of a body has none."""
    if "transfer-encoding" in headers:
        return None
    text = headers.get("content-length")
    if text is None:
        return 0 if http_version < "2" else None
    return int(text) if _LENGTH.fullmatch(text) else None


class Body:
    """One request's body. Read once, by one task at a time."""

    __slots__ = ("_is_silent", "_receive", "_since", "_timer", "_waiter", "ended", "length", "received")

    def __init__(self, receive: Receive, length: int | None) -> None:
        """`length` is what was announced, None when nothing was."""
        self._receive = receive
        self.length = length
        self.ended = length == 0
        self.received = 0
        """Bytes that came so far."""
        # Who waits for the sender, and since when. One timer serves a whole body, and is moved only when it goes off:
        # an `asyncio.timeout` for each message was a quarter of what the event loop did in an upload.
        self._waiter: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_silent = False

    async def stream(self) -> AsyncGenerator[bytes, None]:
        """Every byte, in the server's own pieces. Raises IncompleteBody, ClientGone, InvalidRequest, SenderSilent."""
        while not self.ended:
            if piece := await self.next():
                yield piece

    async def read(self, limit: int) -> bytes:
        """All of it. Raises as `stream`, and InvalidRequest when it is longer than `limit`."""
        pieces: list[bytes] = []
        while not self.ended:
            pieces.append(await self.next())
            if self.received > limit:
                raise InvalidRequest(f"the body has more than {limit} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def next(self) -> bytes:
        """The bytes of one message, perhaps none; `ended` is set with the last. Raises as `stream`."""
        message = await self._hear()
        if message["type"] != "http.request":
            self._end()
            raise ClientGone("the client closed the connection in the middle of the body")
        piece: bytes = message.get("body", b"")
        self.received += len(piece)
        length = self.length
        if length is not None and self.received > length:
            self._end()
            raise InvalidRequest("the body is longer than its Content-Length")
        if self.received == length or not message.get("more_body", False):
            self._end()
            if length is not None and self.received < length:
                raise IncompleteBody("the body is shorter than its Content-Length")
        return piece

    async def drain(self, *, waiting: bool) -> bool:
        """Read on and forget, within bounds, so that the answer can reach a client that is still sending; whether the
        body has ended, so that the connection can be used again.

        `waiting` says that the sender waits for "100 Continue": it is not told to go on for nothing.
        """
        if self._is_silent or (waiting and not self.received):
            return self.ended
        if self.length is not None and self.length - self.received > DRAIN_MAX_BYTES:
            return self.ended
        end = self.received + DRAIN_MAX_BYTES
        try:
            async with asyncio.timeout(DRAIN_MAX_SECONDS):
                while not self.ended and self.received < end:
                    await self.next()
        except (TimeoutError, InvalidRequest, SenderSilent):
            self._end()
            return False
        return self.ended

    async def _hear(self) -> Message:
        """The next message. Raises SenderSilent."""
        loop = asyncio.get_running_loop()
        task = self._waiter = asyncio.current_task(loop)
        assert task is not None
        self._since = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(SILENCE_MAX_SECONDS, self._look)
        try:
            return await self._receive()
        except asyncio.CancelledError:
            # Somebody else may have cancelled us as well.
            if self._is_silent and not task.uncancel():
                raise SenderSilent("nothing came for too long") from None
            raise
        finally:
            self._waiter = None

    def _look(self) -> None:
        """See whether the sender has been silent for too long, and look again when it could be."""
        loop = asyncio.get_running_loop()
        left = self._since + SILENCE_MAX_SECONDS - loop.time()
        self._timer = None
        if self._waiter is None:
            return
        if left > 0:
            self._timer = loop.call_later(left, self._look)
        else:
            self._is_silent = True
            self._waiter.cancel()

    def _end(self) -> None:
        self.ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
