"""Where sealing and opening run: an executor, and a `BlockSealer` for each of its threads.

One of these serves a whole process. Cancelling `run` gives up waiting; the thread finishes what it began, on memory
that it keeps alive itself, and the result is dropped.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from holdfast.core.clock import Randomness
from holdfast.crypto.blocks import BlockSealer

T = TypeVar("T")


class SealingThreads:
    """An executor whose threads can seal."""

    def __init__(self, executor: Executor, randomness: Randomness) -> None:
        self._executor = executor
        self._local = threading.local()
        self.randomness = randomness

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
