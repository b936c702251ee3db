"""Where sealing and opening run: an executor, a `BlockSealer` for each of its threads, and how many blocks there are.

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
from holdfast.crypto.blocks import BlockSealer

T = TypeVar("T")

# Blocks between a body and the drives, of all trees that a process writes or reads ahead in. A block of 1 MiB in 4+2 is
# 3.25 MiB on its way out (sealed, parity, and its copy in the drives' commits) and as much on its way in (fragments,
# joined, opened), so this many are 104 MiB; ADR 16 adds up a worker. Two cores are busy with six.
BLOCKS_MAX_COUNT = 32

# What readers may take of it: a client that does not read keeps what was read ahead for it, a writer's blocks end by
# themselves. So writers always find the other half.
AHEAD_MAX_COUNT = BLOCKS_MAX_COUNT // 2


class BlockBudget:
    """How many blocks are in the pipelines of a process. For one event loop.

    Each reader may have one block that is not counted here, and takes more only while there is room: it never waits.
    A writer waits, in turn, for every block.
    """

    def __init__(self, blocks: int = BLOCKS_MAX_COUNT, ahead: int = AHEAD_MAX_COUNT) -> None:
        assert 0 <= ahead < blocks
        self._blocks = blocks
        self._ahead = ahead
        self._taken = 0
        self._taken_ahead = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def taken(self) -> int:
        return self._taken

    def try_ahead(self) -> bool:
        """Take a block to read ahead into, unless writers want it; to be ended by `release_ahead`."""
        if self._taken_ahead >= self._ahead or self._taken >= self._blocks or self._waiting:
            return False
        self._taken_ahead += 1
        self._taken += 1
        return True

    def release_ahead(self) -> None:
        self._taken_ahead -= 1
        self.release()

    async def acquire(self) -> None:
        """Wait for a block to write; to be ended by `release`."""
        if self._taken < self._blocks and not self._waiting:
            self._taken += 1
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            # It may have been handed over in the same turn of the loop.
            if waiter.done() and not waiter.cancelled():
                self.release()
            else:
                self._waiting.remove(waiter)
            raise

    def release(self) -> None:
        """Hand the block to the writer that waits longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._taken -= 1


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

    async def run(self, call: Callable[[], T]) -> T:
        """`call` in a thread of the executor."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
