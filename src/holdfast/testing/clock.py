"""Time and chance for tests: a clock that moves only when told to, and chance that repeats itself from one seed."""

import asyncio
import heapq
from random import Random  # noqa: TID251  seeded: that is the point


class FakeClock:
    """Stands still until `advance`. Sleepers wake in the order of their times."""

    def __init__(self, *, now_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = now_ns
        self._monotonic_ns = 0
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_ns(self) -> int:
        return self._now_ns

    def monotonic(self) -> float:
        return self._monotonic_ns / 1e9

    async def sleep(self, seconds: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._monotonic_ns + max(0, round(seconds * 1e9)), self._count, future))
        await future

    @property
    def sleepers(self) -> int:
        """How many wait."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking each sleeper at its time and letting it run before the next."""
        end = self._monotonic_ns + round(seconds * 1e9)
        await self._settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            self._move_to(max(due, self._monotonic_ns))
            if not future.done():
                future.set_result(None)
            await self._settle()
        self._move_to(end)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an operator or a bad time server would. Nobody wakes."""
        self._now_ns += round(seconds * 1e9)

    def _move_to(self, monotonic_ns: int) -> None:
        self._now_ns += monotonic_ns - self._monotonic_ns
        self._monotonic_ns = monotonic_ns

    async def _settle(self) -> None:
        # Enough turns of the loop for what was woken to run up to its next wait.
        for _ in range(10):
            await asyncio.sleep(0)


class SeededRandomness:
    """The same bytes from the same seed: for tests only, anybody can predict them."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)
