"""A bounded pool of aligned buffers in which bodies are cut into blocks.

Fresh memory is the most expensive thing on a virtual machine: a page fault costs more than hashing the page. So the
buffers are anonymous mappings, touched once and used again. The pool's size bounds what all uploads of a process
may hold; whoever finds it empty waits, for a bounded time, which slows its sender down.
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
    """Buffers of `size` bytes each, at most `count` of them. For one event loop."""

    def __init__(self, size: int, count: int) -> None:
        self.size = size
        self._free: list[memoryview] = []
        self._unmade = count
        self._waiting: deque[asyncio.Future[memoryview]] = deque()

    async def acquire(self) -> memoryview:
        """A buffer with arbitrary content. Raises Timeout when none comes free in time."""
        if self._free:
            return self._free.pop()
        if self._unmade:
            self._unmade -= 1
            return memoryview(mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
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
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(buffer)
                return
        self._free.append(buffer)


class Lease:
    """The buffers that one upload holds; whatever way it ends, they go back."""

    def __init__(self, pool: BufferPool) -> None:
        self._pool = pool
        self._buffers: dict[int, memoryview] = {}

    async def acquire(self) -> memoryview:
        buffer = await self._pool.acquire()
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
