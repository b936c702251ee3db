"""A bounded pool of aligned buffers in which bodies are cut into blocks.

Fresh memory is the most expensive thing on a virtual machine: a page fault costs more than hashing the page. So the
buffers are anonymous mappings, touched once and used again. The pool's size bounds what all uploads of a process
may hold; whoever finds it empty waits, for a bounded time, which slows its sender down.

Longer buffers cost less for each byte, and shorter ones serve more uploads: when there is no room for the length that
is asked for, a shorter one is given.
"""

import asyncio
import mmap
from collections import deque
from types import TracebackType
from typing import Self

from holdfast.core.errors import Timeout

# A client that holds a buffer and sends nothing is cut off by its gateway long before.
WAIT_MAX_SECONDS = 60.0


class BufferPool:
    """Buffers of `least` bytes and more, `total` bytes in all. For one event loop."""

    def __init__(self, least: int, total: int) -> None:
        assert 0 < least <= total
        self.least = least
        self._free: dict[int, list[memoryview]] = {least: []}
        self._unmade = total
        """Bytes that may still be mapped."""
        self._waiting: deque[asyncio.Future[memoryview]] = deque()

    async def acquire(self, length: int) -> memoryview:
        """A buffer with arbitrary content, of `length` bytes or, when room is short, a half or a quarter of that, not
        less than the least.

        Raises Timeout when none comes free in time.
        """
        if not self._waiting:
            while (buffer := self._take(length)) is None and length > self.least:
                length = max(self.least, length // 2)
            if buffer is not None:
                return buffer
        waiter: asyncio.Future[memoryview] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(WAIT_MAX_SECONDS):
                return await waiter
        except BaseException as error:
            # A buffer may have been handed over in the same turn of the loop in which the wait was given up.
            if waiter.done() and not waiter.cancelled():
                self.release(waiter.result())
            if isinstance(error, TimeoutError):
                raise Timeout("too many uploads at once: no buffer came free") from None
            raise

    def release(self, buffer: memoryview) -> None:
        """Give back what `acquire` gave. The caller must not touch it again."""
        self._free.setdefault(len(buffer), []).append(buffer)
        while self._waiting and (least := self._take(self.least)) is not None:
            waiter = self._waiting.popleft()
            if waiter.done():
                self._free[self.least].append(least)
            else:
                waiter.set_result(least)

    def _take(self, length: int) -> memoryview | None:
        """A free buffer of just this length, or a new one in the place of free ones of other lengths."""
        free = self._free.setdefault(length, [])
        if free:
            return free.pop()
        for other, buffers in self._free.items():
            while buffers and self._unmade < length:
                buffers.pop()
                self._unmade += other
        if self._unmade < length:
            return None
        self._unmade -= length
        return memoryview(mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


class Lease:
    """The buffers that one upload holds; whatever way it ends, they go back."""

    def __init__(self, pool: BufferPool) -> None:
        self.least = pool.least
        self._pool = pool
        self._buffers: dict[int, memoryview] = {}

    async def acquire(self, length: int) -> memoryview:
        buffer = await self._pool.acquire(length)
        self._buffers[id(buffer)] = buffer
        return buffer

    def release(self, buffer: memoryview) -> None:
        """Give one back early. No error when the lease has ended meanwhile, which gave back all."""
        if self._buffers.pop(id(buffer), None) is not None:
            self._pool.release(buffer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for buffer in self._buffers.values():
            self._pool.release(buffer)
        self._buffers.clear()
