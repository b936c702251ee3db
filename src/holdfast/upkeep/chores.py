"""Small workers around what other rooms do by themselves: compaction of drives, and whatever is done by the clock."""

from collections.abc import Awaitable, Callable

from holdfast.core.clock import Clock
from holdfast.upkeep.collect import space_is_short
from holdfast.upkeep.interface import Compactable
from holdfast.upkeep.worker import TRANQUILITY_MENDING, TRANQUILITY_TIDYING, State, Wake

# Dead records do not hurt before space is short; whether it is costs little to ask.
COMPACT_LOOK_SECONDS = 30.0

# While space is short, what is collected is wanted back.
SHORT_LOOK_SECONDS = 2.0


class Compaction:
    """Gives back the space of deleted fragments, one bounded step of the drive at a time. One for each local drive."""

    def __init__(self, drive: Compactable, clock: Clock) -> None:
        self.name = f"compact {drive.id.hex()[:8]}"
        self._drive = drive
        self._wake = Wake(clock)
        self._is_short = False

    @property
    def tranquility(self) -> float:
        return TRANQUILITY_MENDING if self._is_short else TRANQUILITY_TIDYING

    def status(self) -> str:
        return ""

    async def work(self) -> State:
        self._is_short = space_is_short([await self._drive.usage()])
        return State.BUSY if await self._drive.compact(thoroughly=self._is_short) else State.IDLE

    async def wait_for_work(self) -> None:
        await self._wake.wait(SHORT_LOOK_SECONDS if self._is_short else COMPACT_LOOK_SECONDS)


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
