"""Threads that may wait for disks.

A disk that hangs keeps the thread that reads from it, for as long as it likes. So nobody queues for these threads: who
finds none free does without, and a disk that hangs costs these threads and nothing else.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from threading import Semaphore
from typing import TypeVar

T = TypeVar("T")

# As many blocks are read from disks at once by one process, each of several drives. And as many can be left behind with
# disks that hang: a thread each, and memory for a sealed block, which nobody accounts for any more.
PATIENT_THREADS_COUNT = 8


class PatientThreads:
    """Runs calls that may wait for a disk, each in a thread of its own."""

    def __init__(self, executor: Executor | None = None) -> None:
        self._executor = executor or ThreadPoolExecutor(PATIENT_THREADS_COUNT, thread_name_prefix="read")
        self._free = Semaphore(PATIENT_THREADS_COUNT)

    def try_run(self, call: Callable[[], T]) -> asyncio.Future[T] | None:
        """Begin `call`; None when all threads are taken. To cancel it is to leave it behind: it goes on by itself."""
        if not self._free.acquire(blocking=False):
            return None
        began = self._executor.submit(call)
        # Also of a call that is cancelled before its thread came to it.
        began.add_done_callback(lambda _: self._free.release())
        return asyncio.wrap_future(began)
