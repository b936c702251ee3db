"""Threads that do the work, as many as there may be requests at once.

Two pools, so that one large object uses every connection and a thousand small ones do too, and neither waits for the
other for ever: jobs (an object each) run in the first, and hand the parts of large objects to the second, which waits
for nobody. Memory is bounded by the parts in flight.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

from holdfast.core.errors import HoldfastError, Unavailable

T = TypeVar("T")
R = TypeVar("R")

# Jobs that are ready while others run: enough that no thread waits for the listing.
_AHEAD_COUNT = 4


class Stopped(Unavailable):
    """The command is being interrupted."""


class Crew:
    """Make it for one command, and `close` it when that is over."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._items = ThreadPoolExecutor(jobs, thread_name_prefix="object")
        self._parts = ThreadPoolExecutor(jobs, thread_name_prefix="part")
        self._stopping = threading.Event()

    def each(self, things: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R | HoldfastError]]:
        """Do `work` for every thing, in no order; what it returned, or our error that it raised."""
        return self._run(self._items, things, work, _AHEAD_COUNT * self.jobs)

    def parts(self, things: Iterable[T], work: Callable[[T], R]) -> Iterator[tuple[T, R]]:
        """The same for the parts of one object, from within a job. The first error ends it, when all have stopped."""
        failed: HoldfastError | None = None

        def unless_failed(thing: T) -> R:
            if failed is not None:
                raise Stopped("another part failed")
            return work(thing)

        for thing, result in self._run(self._parts, things, unless_failed, self.jobs):
            if isinstance(result, HoldfastError):
                failed = failed or result
            elif failed is None:
                yield thing, result
        if failed is not None:
            raise failed

    def check(self) -> None:
        """Between two steps of a long job. Raises Stopped."""
        if self._stopping.is_set():
            raise Stopped("interrupted")

    def close(self) -> None:
        """Nothing new begins; what is under way stops at its next step."""
        self._stopping.set()
        self._items.shutdown(wait=False, cancel_futures=True)
        self._parts.shutdown(wait=False, cancel_futures=True)

    def _run(
        self, pool: ThreadPoolExecutor, things: Iterable[T], work: Callable[[T], R], window: int
    ) -> Iterator[tuple[T, R | HoldfastError]]:
        def guarded(thing: T) -> R | HoldfastError:
            try:
                self.check()
                return work(thing)
            except HoldfastError as error:
                return error

        running: dict[Future[R | HoldfastError], T] = {}
        ended: SimpleQueue[Future[R | HoldfastError]] = SimpleQueue()
        source = iter(things)
        exhausted = False
        while True:
            while not exhausted and len(running) < window:
                try:
                    thing = next(source)
                except StopIteration:
                    exhausted = True
                    break
                future = pool.submit(guarded, thing)
                running[future] = thing
                future.add_done_callback(ended.put)
            if not running:
                return
            future = ended.get()
            yield running.pop(future), future.result()
