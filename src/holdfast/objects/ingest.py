"""A body on its way in: small ones become inline bytes, larger ones are cut into blocks while they arrive.

A body is copied once, into pooled buffers of one block each, or of some if it is long. When a buffer is full, its hash
and its sealing run side by side in threads while the next buffer fills. Nothing that is written here can be seen by
anyone until the caller publishes it; whatever way `receive` ends early, its blocks are garbage that the sweep tells by
their tags.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import Buffer, ContentId
from holdfast.core.limits import MIB
from holdfast.objects.buffers import BufferPool, Lease
from holdfast.objects.contents import ContentWriter
from holdfast.objects.digests import Digester
from holdfast.objects.errors import IncompleteBody
from holdfast.objects.model import Body, Digests, PutOptions
from holdfast.objects.references import Prepared

# Inline bytes live in the metadata, on each of its mirrors: one commit, one sync, no block. Above this, fragments take
# less space than the metadata's copies would, and listings would drag the bytes along.
INLINE_MAX_BYTES = 8 * 1024

# The first blocks of a content are of the pool's least length, so that small objects and the starts of large ones are
# read quickly; from this many on, of GROWN_FACTOR times that. Every block costs a visit to two threads and a commit on
# each drive: at 4+2 on six drives, blocks of 2 MiB take a third less CPU time for each byte than those of 1 MiB, and
# those of 4 MiB little less again, which a reader of a few bytes would pay for.
GROWN_FROM_COUNT = 2
GROWN_FACTOR = 2

# A body that is known to be so long is taken in by buffers of this factor times the least: what is in one buffer is
# hashed in one visit to a thread, sealed in one to another, and in one commit on each drive, and readers still have
# shorter blocks. A shorter body would begin to be hashed, and end to be, the later for it.
STRETCHED_FROM_BYTES = 8 * MIB
STRETCHED_FACTOR = 4

# Buffers of one upload that are filling, hashed or sealed at once. MD5 takes longer than all else together, so one more
# than it works on keeps it busy; the other evens out the drives.
BUFFERS_PER_UPLOAD = 3


@dataclass(slots=True)
class Received:
    """A body that arrived whole and passed its checks. Not published yet."""

    digests: Digests
    checksums: dict[str, str]
    inline: bytes = b""
    content: ContentId | None = None
    """None when `inline` holds all of it."""
    prepared: Prepared = field(default_factory=Prepared)
    """The rows that make the content exist, for the commit that publishes it."""


async def receive(
    body: Body,
    options: PutOptions,
    digester: Digester,
    pool: BufferPool,
    open_writer: Callable[[], Awaitable[ContentWriter]],
    *,
    inline_max: int = INLINE_MAX_BYTES,
) -> Received:
    """Take in a body. Raises IncompleteBody, InvalidRequest (too long), and whatever `options.check` raises."""
    size_max = options.size_max
    if options.size is not None and options.size > size_max:
        raise InvalidRequest(f"the body has more than {size_max} bytes")
    if isinstance(body, (bytes, bytearray, memoryview)):
        if len(body) <= min(inline_max, size_max):
            return receive_inline(body, options, digester)
        body = _once(body)
    with Lease(pool) as lease:
        cutter = _Cutter(lease, digester, open_writer, options.size or options.size_hint)
        try:
            async for chunk in body:
                await cutter.take(chunk)
                if cutter.size > size_max:
                    raise InvalidRequest(f"the body has more than {size_max} bytes")
            if cutter.writer is None and cutter.filled <= inline_max:
                inline = await cutter.drain()
                return _checked(Received(digester.digests(), {}, inline), options)
            await cutter.flush()
            assert cutter.writer is not None
            received = _checked(Received(digester.digests(), {}, content=cutter.writer.content), options)
            received.prepared = await cutter.writer.finish()
            return received
        except BaseException:
            await cutter.abort()
            raise


def receive_inline(body: Buffer, options: PutOptions, digester: Digester) -> Received:
    """Take in a body that is here and short enough to be kept in its version's row. Raises as `receive`."""
    return _checked(Received(digester.whole(body), {}, bytes(body)), options)


class _Cutter:
    """Fills buffers and sends them to the hash and to the drives."""

    def __init__(
        self, lease: Lease, digester: Digester, open_writer: Callable[[], Awaitable[ContentWriter]], expected: int
    ) -> None:
        """`expected` is the body's length, 0 while nobody knows."""
        self._lease = lease
        self._is_long = expected >= STRETCHED_FROM_BYTES
        self._digester = digester
        self._open_writer = open_writer
        self._buffer: memoryview | None = None
        self._slots = asyncio.Semaphore(BUFFERS_PER_UPLOAD)
        self._tasks: set[asyncio.Task[None]] = set()
        self._hashed: asyncio.Task[None] | None = None
        self._failed: BaseException | None = None
        self.writer: ContentWriter | None = None
        self._blocks_count = 0
        """Those that were sent."""
        self.filled = 0
        self.size = 0

    async def take(self, chunk: Buffer) -> None:
        view = memoryview(chunk)
        self.size += len(view)
        while view:
            if self._buffer is None:
                await self._slots.acquire()
                self._buffer = await self._lease.acquire(self._length())
            room = self._buffer[self.filled : self.filled + len(view)]
            room[:] = view[: len(room)]
            self.filled += len(room)
            view = view[len(room) :]
            if self.filled == len(self._buffer):
                await self._send()

    def _length(self) -> int:
        """How long the next buffer should be."""
        return self._lease.least * STRETCHED_FACTOR if self._is_long else self._block_length()

    def _block_length(self) -> int:
        least = self._lease.least
        return least * GROWN_FACTOR if self._blocks_count >= GROWN_FROM_COUNT else least

    def _cut(self, plain: memoryview) -> list[memoryview]:
        """The next blocks."""
        blocks: list[memoryview] = []
        while plain:
            length = self._block_length()
            blocks.append(plain[:length])
            plain = plain[length:]
            self._blocks_count += 1
        return blocks

    async def drain(self) -> bytes:
        """All of a body that was too short for a block."""
        if self._buffer is None:
            return b""
        data = bytes(self._buffer[: self.filled])
        await self._digester.update(data)
        return data

    async def flush(self) -> None:
        """Send what is left, and wait for the hash of all."""
        if self.filled:
            await self._send()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._raise_failure()

    async def abort(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self.writer is not None:
            await self.writer.abort()

    async def _send(self) -> None:
        self._raise_failure()
        if self.writer is None:
            self.writer = await self._open_writer()
        buffer, filled = self._buffer, self.filled
        assert buffer is not None
        self._buffer, self.filled = None, 0
        use = _Use(buffer, self._give_back)
        self._hashed = self._spawn(self._hash(buffer[:filled], self._hashed, use.end))
        try:
            await self.writer.write(self._cut(buffer[:filled]), use.end)
        except BaseException:
            use.end()
            raise

    async def _hash(self, block: memoryview, before: asyncio.Task[None] | None, done: Callable[[], None]) -> None:
        try:
            if before is not None:
                await before
            await self._digester.update(block)
        finally:
            done()

    def _give_back(self, buffer: memoryview) -> None:
        self._lease.release(buffer)
        self._slots.release()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and self._failed is None:
            self._failed = error

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise self._failed


class _Use:
    """A buffer that two are working on: it goes back when both are done."""

    def __init__(self, buffer: memoryview, give_back: Callable[[memoryview], None]) -> None:
        self._buffer = buffer
        self._give_back = give_back
        self._users = 2

    def end(self) -> None:
        self._users -= 1
        if not self._users:
            self._give_back(self._buffer)


def _checked(received: Received, options: PutOptions) -> Received:
    size = received.digests.size
    if options.size is not None and size != options.size:
        raise IncompleteBody(f"the body has {size} bytes, and {options.size} were announced")
    if options.check is not None:
        received.checksums = dict(options.check(received.digests))
    return received


async def _once(body: Buffer) -> AsyncIterator[Buffer]:
    yield body
