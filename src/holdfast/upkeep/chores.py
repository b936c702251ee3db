"""Small workers around what other rooms do by themselves: compaction of drives, and whatever is done by the clock."""

from collections.abc import Awaitable, Callable

from holdfast.core.clock import Clock
from holdfast.upkeep.interface import Compactable
from holdfast.upkeep.worker import TRANQUILITY_TIDYING, State, Wake

# Dead records do not hurt before space is short, and then the collector's owner wakes this.
COMPACT_LOOK_SECONDS = 300.0


class Compaction:
    """Gives back the space of deleted fragments, one bounded step of the drive at a time. One for each local drive."""

    tranquility = TRANQUILITY_TIDYING

    def __init__(self, drive: Compactable, clock: Clock) -> None:
        self.name = f"compact {drive.id.hex()[:8]}"
        self._drive = drive
        self._wake = Wake(clock)

    def status(self) -> str:
        return ""

    def wake(self) -> None:
        self._wake.set()

    async def work(self) -> State:
        return State.BUSY if await self._drive.compact() else State.IDLE

    async def wait_for_work(self) -> None:
        await self._wake.wait(COMPACT_LOOK_SECONDS)


class Periodic:
    """Calls something every so often: metadata checkpoints, verification of the view, and the like.

    The first call comes at once: whatever was due while nobody ran is done now.
    """

    tranquility = TRANQUILITY_TIDYING

    def __init__(self, name: str, call: Callable[[], Awaitable[None]], every_seconds: float, clock: Clock) -> None:
        self.name = name
        self._call = call
        self._every_seconds = every_seconds
        self._wake = Wake(clock)
        self._calls = 0

    def status(self) -> str:
        return f"done {self._calls} times"

    def wake(self) -> None:
        self._wake.set()

    async def work(self) -> State:
        await self._call()
        self._calls += 1
        return State.IDLE

    async def wait_for_work(self) -> None:
        await self._wake.wait(self._every_seconds)
