"""The request's body as it arrives.

Rules. Nothing is read before somebody asks, so a client that waits for "100 Continue" is told so only when its body is
wanted. One message is asked for at a time: that is the back-pressure. A connection that ends early, a body that is not
as long as announced, and a sender that falls silent, all raise; none ever looks like the end of a body.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from holdfast.core.errors import HoldfastError
from holdfast.core.limits import MIB
from holdfast.gateways.air.errors import AirError
from holdfast.objects.errors import IncompleteBody

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

# What is read and thrown away so that a refused client gets its answer instead of a reset connection.
DRAIN_MAX_BYTES = MIB
_DRAIN_SECONDS = 5.0

# A sender that falls silent for so long is given up. Longer than any retransmission that still succeeds.
RECEIVE_TIMEOUT_SECONDS = 60.0


class ClientGone(IncompleteBody):
    """The connection ended in the middle of the body. There is nobody to answer."""

    code = "client_gone"


class Body:
    """One request's body. Read once."""

    __slots__ = ("_ended", "_length", "_receive", "received")

    def __init__(self, receive: Receive, length: int | None) -> None:
        """`length` is what Content-Length says, None when the sender did not say."""
        self._receive = receive
        self._length = length
        self._ended = length == 0
        self.received = 0
        """Bytes that came so far."""

    async def stream(self) -> AsyncIterator[bytes]:
        """Every byte, in the server's own pieces. Raises IncompleteBody, ClientGone, AirError (408)."""
        while not self._ended:
            try:
                async with asyncio.timeout(RECEIVE_TIMEOUT_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                raise AirError(408, "nothing came for too long") from None
            if message["type"] != "http.request":
                self._ended = True
                raise ClientGone("the client closed the connection in the middle of the body")
            self._ended = not message.get("more_body", False)
            piece: bytes = message.get("body", b"")
            self.received += len(piece)
            if self._length is not None and self.received > self._length:
                raise IncompleteBody("the body is longer than its Content-Length")
            if piece:
                yield piece
        if self._length is not None and self.received < self._length:
            raise IncompleteBody("the body is shorter than its Content-Length")

    async def drain(self, *, waiting: bool) -> bool:
        """Read on and forget, within bounds; whether the body has ended, so that the connection can be used again.

        `waiting` says that the sender waits for "100 Continue": it is not told to go on for nothing.
        """
        if self._length is None or self._length > DRAIN_MAX_BYTES or (waiting and not self.received):
            return self._ended
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                async for _ in self.stream():
                    pass
        except (TimeoutError, HoldfastError, AirError):
            return False
        return True
