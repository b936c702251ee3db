"""The data in a request's body: what `asgi.body` receives, as bytes or as a stream, its coding and its hash checked.

Whoever streams gets what is inside the aws-chunked coding. Pieces are slices of the server's own buffers.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from hmac import compare_digest

from holdfast.asgi.body import Body as WireBody
from holdfast.asgi.messages import Receive
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB, MIB
from holdfast.gateways.s3 import checksums
from holdfast.gateways.s3.chunked import ChunkDecoder
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.errors import IncompleteBody

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


class Body:
    """One request's body. Read once, as a whole or as a stream."""

    __slots__ = ("_decoder", "_sha256", "_wire", "length")

    def __init__(self, receive: Receive, content_length: int | None) -> None:
        self._wire = WireBody(receive, content_length)
        self._decoder: ChunkDecoder | None = None
        self._sha256: bytes | None = None
        self.length = content_length
        """Bytes of data inside; None when the sender did not say."""

    def expect(self, *, decoder: ChunkDecoder | None, length: int | None, sha256: bytes | None) -> None:
        """Set what the checked signature says of the body: its coding, its decoded length, its hash."""
        self._decoder = decoder
        self._sha256 = sha256
        if decoder is not None:
            self.length = length

    @property
    def wire_length(self) -> int | None:
        """Content-Length; None when the sender did not say."""
        return self._wire.length

    @property
    def received(self) -> int:
        """Bytes that came over the wire so far."""
        return self._wire.received

    @property
    def decoder(self) -> ChunkDecoder | None:
        return self._decoder

    @property
    def sha256(self) -> bytes | None:
        """The signed hash of the whole body; `read` checks it, whoever streams must."""
        return self._sha256

    async def read(self, limit: int) -> bytes:
        """The whole body, its length and its signed hash checked. Raises S3Error, and as `WireBody.stream`."""
        if self.length is not None and self.length > limit:
            raise S3Error("MaxMessageLengthExceeded", "Your request was too big.")
        wire_limit = limit if self._decoder is None else limit * _CODING_MAX_RATIO + _CODING_MAX_BYTES
        wire = self._wire
        pieces: list[bytes] = []
        while not wire.ended:
            pieces.append(await wire.next())
            if wire.received > wire_limit:
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
        wire = self._wire
        if self._decoder is None:
            while not wire.ended:
                if piece := await wire.next():
                    yield piece
            return
        decoding: asyncio.Future[list[memoryview]] | None = None
        while not wire.ended:
            batch = await self._batch(_BATCH_MAX_BYTES)
            if decoding is not None:
                for view in await decoding:
                    yield view
            decoding = _decode(self._decoder, batch)
        if decoding is not None:
            for view in await decoding:
                yield view
        self._decoder.finish()

    async def drain(self, *, waiting: bool) -> None:
        """As `WireBody.drain`."""
        await self._wire.drain(waiting=waiting)

    async def _batch(self, size: int) -> list[bytes]:
        """Messages until `size` bytes are here or the body has ended."""
        wire = self._wire
        batch: list[bytes] = []
        end = wire.received + size
        while not wire.ended and wire.received < end:
            batch.append(await wire.next())
        return batch


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
