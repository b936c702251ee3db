"""Batches that make themselves: what is asked for while requests are under way goes with the next one.

Nobody waits for a batch to fill. Who asks when nothing is under way is served at once and alone, so a batch is as long
as the server is busy.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from holdfast.core.errors import HoldfastError

T = TypeVar("T")
R = TypeVar("R")

# One that the server works on, and one on its way.
REQUESTS_AT_ONCE_COUNT = 2


class Gatherer(Generic[T, R]):
    """Hands items to `send` in batches, and each of its answers to whoever asked for it."""

    def __init__(
        self,
        send: Callable[[Sequence[T]], Awaitable[Sequence[R | HoldfastError]]],
        weigh: Callable[[T], int],
        *,
        weight_max: int,
        count_max: int,
    ) -> None:
        """`send` answers in the order of the batch, and raises HoldfastError for all of it. A batch ends with the item
        that takes it to `weight_max`."""
        self._send = send
        self._weigh = weigh
        self._weight_max = weight_max
        self._count_max = count_max
        self._waiting: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._running = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, item: T) -> R:
        """The answer to one item. Raises what `send` answered or raised. Who is cancelled leaves the others alone."""
        future: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running < REQUESTS_AT_ONCE_COUNT:
            self._running += 1
            task = asyncio.create_task(self._run(), name="batches")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _run(self) -> None:
        """Send batches until nobody waits."""
        try:
            while batch := self._take():
                await self._serve(batch)
        finally:
            # In the same step as the look that found nobody: whoever asks now must find nobody running.
            self._running -= 1

    async def _serve(self, batch: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        answers: Sequence[R | HoldfastError]
        try:
            answers = await self._send([item for item, _ in batch])
        except HoldfastError as error:
            answers = [error] * len(batch)
        except BaseException:
            for _, future in batch:
                future.cancel()
            raise
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, HoldfastError):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        batch: list[tuple[T, asyncio.Future[R]]] = []
        weight = 0
        while self._waiting and weight < self._weight_max and len(batch) < self._count_max:
            item, future = self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
                weight += self._weigh(item)
        return batch
