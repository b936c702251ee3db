"""The request's body: from ASGI's `receive` to bytes or to a stream, with its length and its coding checked.

Rules. Nothing is read before somebody asks, so a client that waits for "100 Continue" is only told so when its body is
wanted. One message is asked for at a time: that is the back-pressure. A connection that ends early, a body that is too
short or too long, and a sender that falls silent, all raise; none ever looks like the end of a body.

Whoever streams gets what is inside the aws-chunked coding. Pieces are slices of the server's own buffers.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from hmac import compare_digest
from typing import Any

from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB, MIB
from holdfast.gateways.s3 import checksums
from holdfast.gateways.s3.chunked import ChunkDecoder
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.errors import IncompleteBody

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# A sender that falls silent for so long is given up. Longer than any retransmission that still succeeds.
RECEIVE_TIMEOUT_SECONDS = 60.0

# Up to this length a body is read whole before the store is called: one buffer, no iterator, few awaits.
WHOLE_BODY_MAX_BYTES = 64 * KIB

# The longest XML document that S3 takes: a multi-delete of 1,000 keys, each byte of them written as an entity.
DOCUMENT_MAX_BYTES = 8 * MIB

# The coding around a body that is read whole: at the least 85 bytes a chunk. A chunk of 1 byte is refused by S3 too.
_CODING_MAX_RATIO = 2
_CODING_MAX_BYTES = 16 * KIB

# From this size on, signatures of chunks are checked in a thread: the hop costs about 60 us, SHA-256 35 us in 64 KiB.
_THREAD_MIN_BYTES = 192 * KIB
_BATCH_MAX_BYTES = 512 * KIB

# What is read and thrown away so that a refused client gets its answer instead of a reset connection: the largest part
# that common clients send unless told otherwise (s5cmd 50 MiB, aws-cli and boto3 8 MiB).
DRAIN_MAX_BYTES = 64 * MIB
_DRAIN_SECONDS = 5.0


class ClientGone(IncompleteBody):
    """The connection ended in the middle of the body. There is nobody to answer."""

    code = "client_gone"


class Body:
    """One request's body. Read once, as a whole or as a stream."""

    __slots__ = (
        "_content_length",
        "_decoder",
        "_ended",
        "_is_silent",
        "_receive",
        "_sha256",
        "_since",
        "_timer",
        "_waiter",
        "length",
        "received",
    )

    def __init__(self, receive: Receive, content_length: int | None) -> None:
        self.length = content_length
        """Bytes of data inside; None when the sender did not say."""
        self.received = 0
        """Bytes that came over the wire so far."""
        self._receive = receive
        self._content_length = content_length
        self._decoder: ChunkDecoder | None = None
        self._sha256: bytes | None = None
        self._ended = False
        # Who waits for the sender, and since when. One timer serves a whole body, and is moved only when it goes off:
        # an `asyncio.timeout` for each message was a quarter of what the event loop did in an upload.
        self._waiter: asyncio.Task[Any] | None = None
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_silent = False

    def expect(self, *, decoder: ChunkDecoder | None, length: int | None, sha256: bytes | None) -> None:
        """Set what the checked signature says of the body: its coding, its decoded length, its hash."""
        self._decoder = decoder
        self._sha256 = sha256
        if decoder is not None:
            self.length = length

    @property
    def wire_length(self) -> int | None:
        """Content-Length; None when the sender did not say."""
        return self._content_length

    @property
    def decoder(self) -> ChunkDecoder | None:
        return self._decoder

    @property
    def sha256(self) -> bytes | None:
        """The signed hash of the whole body; `read` checks it, whoever streams must."""
        return self._sha256

    async def read(self, limit: int) -> bytes:
        """The whole body, its length and its signed hash checked. Raises S3Error, IncompleteBody, ClientGone."""
        if self.length is not None and self.length > limit:
            raise S3Error("MaxMessageLengthExceeded", "Your request was too big.")
        wire_limit = limit if self._decoder is None else limit * _CODING_MAX_RATIO + _CODING_MAX_BYTES
        pieces: list[bytes] = []
        self._since = asyncio.get_running_loop().time()
        while not self._ended:
            pieces.append(await self._next())
            if self.received > wire_limit:
                raise S3Error("MaxMessageLengthExceeded", "Your request was too big.")
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._decoder is not None:
            inside = self._decoder.feed(data)
            self._decoder.finish()
            data = bytes(inside[0]) if len(inside) == 1 else b"".join(inside)
        if self._sha256 is not None and not compare_digest(hashlib.sha256(data).digest(), self._sha256):
            raise checksums.payload_mismatch()
        return data

    async def stream(self) -> AsyncIterator[Buffer]:
        """The data as it arrives. The signed hash of the whole is left to the reader of the stream.

        While one batch of an aws-chunked body is decoded in a thread, the next is received.
        """
        if self._decoder is None:
            while not self._ended:
                for piece in await self._batch(1):
                    yield piece
            return
        decoding: asyncio.Future[list[memoryview]] | None = None
        while not self._ended:
            batch = await self._batch(_BATCH_MAX_BYTES)
            if decoding is not None:
                for view in await decoding:
                    yield view
            decoding = _decode(self._decoder, batch)
        if decoding is not None:
            for view in await decoding:
                yield view
        self._decoder.finish()

    async def drain(self) -> None:
        """Read on and forget, within bounds, so that the answer can reach a client that is still sending."""
        self._since = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._ended and self.received < DRAIN_MAX_BYTES:
                    await self._next()
        except (TimeoutError, IncompleteBody, S3Error):
            self._end()

    async def _batch(self, size: int) -> list[bytes]:
        """Messages until `size` bytes are here or the body has ended."""
        batch: list[bytes] = []
        gathered = 0
        self._since = asyncio.get_running_loop().time()
        while gathered < size and not self._ended:
            piece = await self._next()
            gathered += len(piece)
            batch.append(piece)
        return batch

    async def _next(self) -> bytes:
        """One message's bytes; `_ended` is set behind the last. Raises S3Error when it is late."""
        if self._content_length == self.received:
            self._end()
            return b""
        message = await self._hear()
        if message["type"] != "http.request":
            self._end()
            raise ClientGone("the client closed the connection in the middle of the body")
        piece: bytes = message.get("body", b"")
        self.received += len(piece)
        if self._content_length is not None:
            if self.received > self._content_length:
                raise S3Error("InvalidRequest", "The body is longer than its Content-Length.")
            if self.received == self._content_length:
                self._end()
                return piece
        if not message.get("more_body", False):
            self._end()
            if self._content_length is not None:
                raise IncompleteBody("the body is shorter than its Content-Length")
        return piece

    async def _hear(self) -> Message:
        task = self._waiter = asyncio.current_task()
        assert task is not None
        if self._timer is None:
            self._watch()
        try:
            return await self._receive()
        except asyncio.CancelledError:
            # Somebody else may have cancelled us as well.
            if self._is_silent and not task.uncancel():
                raise _timeout() from None
            raise
        finally:
            self._waiter = None

    def _watch(self) -> None:
        """See whether the sender has been silent for too long, and look again when it could be."""
        loop = asyncio.get_running_loop()
        left = self._since + RECEIVE_TIMEOUT_SECONDS - loop.time()
        self._timer = None
        if self._waiter is None:
            return
        if left > 0:
            self._timer = loop.call_later(left, self._watch)
        else:
            self._is_silent = True
            self._waiter.cancel()

    def _end(self) -> None:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _decode(decoder: ChunkDecoder, batch: list[bytes]) -> asyncio.Future[list[memoryview]]:
    """What is inside of a batch: in a thread when there is much to hash. Batches must be decoded in turn."""
    loop = asyncio.get_running_loop()
    if sum(map(len, batch)) >= _THREAD_MIN_BYTES:
        future = loop.run_in_executor(None, _feed_all, decoder, batch)
    else:
        future = loop.create_future()
        try:
            future.set_result(_feed_all(decoder, batch))
        except (S3Error, IncompleteBody) as error:
            future.set_exception(error)
    # An upload that ends early for another reason never asks what became of its last batch.
    future.add_done_callback(_look_at)
    return future


def _look_at(future: asyncio.Future[list[memoryview]]) -> None:
    if not future.cancelled():
        future.exception()


def _feed_all(decoder: ChunkDecoder, batch: list[bytes]) -> list[memoryview]:
    return [view for piece in batch for view in decoder.feed(piece)]


def _timeout() -> S3Error:
    return S3Error(
        "RequestTimeout",
        "Your socket connection to the server was not read from or written to within the timeout period.",
    )
