"""Where sealing and opening run: an executor, a `BlockSealer` for each of its threads, and how many bytes are in them.

One of these serves a whole process. Cancelling `run` gives up waiting; the thread finishes what it began, on memory
that it keeps alive itself, and the result is dropped.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from holdfast.core.clock import Randomness
from holdfast.core.limits import MIB
from holdfast.crypto.blocks import BlockSealer

T = TypeVar("T")

# Plain bytes of the blocks between a body and the drives, of all trees that a process writes or reads ahead in. A MiB
# in 4+2 is 3.25 MiB on its way out (sealed, parity, and its copy in the drives' commits) and as much on its way in
# (fragments, joined, opened), so this much is 104 MiB; ADR 16 adds up a worker. Two cores are busy with six MiB.
BLOCKS_MAX_BYTES = 32 * MIB

# What readers may take of it: a client that does not read keeps what was read ahead for it, a writer's blocks end by
# themselves. So writers always find the other half.
AHEAD_MAX_BYTES = BLOCKS_MAX_BYTES // 2


class BlockBudget:
    """How many plain bytes are in the pipelines of a process. For one event loop.

    Each reader may have one block that is not counted here, and takes more only while there is room: it never waits.
    A writer waits, in turn, for every block.
    """

    def __init__(self, total: int = BLOCKS_MAX_BYTES, ahead: int = AHEAD_MAX_BYTES) -> None:
        """`total` is at least as long as any block."""
        assert 0 <= ahead < total
        self._total = total
        self._ahead = ahead
        self._taken = 0
        self._taken_ahead = 0
        self._waiting: deque[tuple[asyncio.Future[None], int]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    def try_ahead(self, length: int) -> bool:
        """Take a block to read ahead into, unless writers want it; to be ended by `release_ahead`."""
        if self._taken_ahead + length > self._ahead or self._taken + length > self._total or self._waiting:
            return False
        self._taken_ahead += length
        self._taken += length
        return True

    def release_ahead(self, length: int) -> None:
        self._taken_ahead -= length
        self.release(length)

    async def acquire(self, length: int) -> None:
        """Wait for a block to write; to be ended by `release`."""
        assert length <= self._total
        if self._taken + length <= self._total and not self._waiting:
            self._taken += length
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((waiter, length))
        try:
            await waiter
        except asyncio.CancelledError:
            # It may have been handed over in the same turn of the loop.
            if waiter.done() and not waiter.cancelled():
                self.release(length)
            else:
                # Those behind it may want less; it is passed over there.
                self._hand_over()
            raise

    def release(self, length: int) -> None:
        """Let the writers that wait longest have it."""
        self._taken -= length
        self._hand_over()

    def _hand_over(self) -> None:
        while self._waiting:
            waiter, length = self._waiting[0]
            if not waiter.done():
                if self._taken + length > self._total:
                    return
                self._taken += length
                waiter.set_result(None)
            self._waiting.popleft()


class SealingThreads:
    """An executor whose threads can seal."""

    def __init__(self, executor: Executor, randomness: Randomness) -> None:
        self._executor = executor
        self._local = threading.local()
        self.randomness = randomness
        self.blocks = BlockBudget()
        """Of every tree that goes through these threads."""

    def sealer(self) -> BlockSealer:
        """The calling thread's own."""
        sealer = getattr(self._local, "sealer", None)
        if sealer is None:
            sealer = self._local.sealer = BlockSealer()
        assert isinstance(sealer, BlockSealer)
        return sealer

    def begin(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """Have `call` made in a thread of the executor."""
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def run(self, call: Callable[[], T]) -> T:
        """`call` in a thread of the executor."""
        return await self.begin(call)
