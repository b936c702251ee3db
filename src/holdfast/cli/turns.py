"""Taking turns: workers of several processes of which one may work at a time.

Those that move fragments must not do so side by side: two that believe in different layouts could each drop what the
other keeps. So each step is taken under a lock in the run directory; the kernel frees it when its holder dies. Steps
are short, so a command gets its turn beside the upkeep process, and the other way round.
"""

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from holdfast.core.clock import Clock
from holdfast.upkeep.worker import State, Worker

MOVING = "moving"
"""Held for a step that writes or drops fragments of blocks that live."""

RECODING = "recoding"
"""Held while a content is written anew: minutes, for a large one."""

# How soon a lock that was let go of is noticed. Who waits sleeps rather than keep a thread: a cancellation ends it.
_POLL_SECONDS = 0.01


@asynccontextmanager
async def turn(run: Path, name: str, clock: Clock) -> AsyncIterator[None]:
    """Alone among the processes of this store, as far as `name` goes."""
    descriptor = os.open(run / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await clock.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


class InTurn:
    """A worker whose every step is taken in its turn."""

    def __init__(self, worker: Worker, run: Path, turn_name: str, clock: Clock) -> None:
        self._worker = worker
        self._run = run
        self._turn_name = turn_name
        self._clock = clock

    @property
    def name(self) -> str:
        return self._worker.name

    @property
    def tranquility(self) -> float:
        return self._worker.tranquility

    def status(self) -> str:
        return self._worker.status()

    async def work(self) -> State:
        async with turn(self._run, self._turn_name, self._clock):
            return await self._worker.work()

    async def wait_for_work(self) -> None:
        await self._worker.wait_for_work()
