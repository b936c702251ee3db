"""The body of an answer as it goes out.

Rules. No answer is begun before its status is certain; once its body is on its way, an error can only break the
connection, so that a short answer is never taken for a whole one. A client that has left is noticed while its body is
still being read, and one that takes nothing is given up: what it keeps from us is memory, and a reader's buffers.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

from holdfast.asgi.errors import ClientGone
from holdfast.asgi.messages import Header, Message, Receive, Send
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB, MIB

# Longer than any client thinks about what it was sent.
SEND_MAX_SECONDS = 300.0

# The server keeps a copy of each message until the client took it: of a piece's length it need not be.
MESSAGE_MAX_BYTES = MIB

# So much a server takes without waiting for the client. A clock for each small answer would be felt.
_UNTIMED_MAX_BYTES = 16 * KIB


class Sender:
    """One answer."""

    __slots__ = ("_receive", "_send", "sent", "started")

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self.started = False
        self.sent = 0
        """Bytes of the body so far."""

    async def start(self, status: int, headers: Sequence[Header]) -> None:
        """Status and headers."""
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def end(self, body: bytes = b"") -> None:
        """The whole body, or the end of it. Raises ClientGone."""
        message = {"type": "http.response.body", "body": body}
        if len(body) <= _UNTIMED_MAX_BYTES:
            await self._send(message)
            self.sent += len(body)
        else:
            await self._send_timed(message)

    async def stream(self, first: bytes, pieces: AsyncIterator[Buffer]) -> None:
        """The body as it comes, to its end. The request's own body must have been read, or refused.

        Raises ClientGone, and what `pieces` raises, which is closed, if it can be, however this ends. A piece may be
        used again once the next is asked for.
        """
        gone = asyncio.ensure_future(self._wait_until_gone())
        try:
            await self._send_piece(first, gone)
            async for piece in pieces:
                await self._send_piece(piece, gone)
            await self.end()
        finally:
            gone.cancel()
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()

    async def _send_piece(self, piece: Buffer, gone: asyncio.Future[None]) -> None:
        for start in range(0, len(piece), MESSAGE_MAX_BYTES):
            if gone.done():
                raise ClientGone("the client left")
            body = bytes(piece[start : start + MESSAGE_MAX_BYTES])
            await self._send_timed({"type": "http.response.body", "body": body, "more_body": True})

    async def _send_timed(self, message: Message) -> None:
        try:
            async with asyncio.timeout(SEND_MAX_SECONDS):
                await self._send(message)
        except TimeoutError:
            raise ClientGone("the client takes nothing") from None
        self.sent += len(message["body"])

    async def _wait_until_gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
