"""What a worker remembers across restarts, a small record in a row of its own; chores that come around; and a rate.

Progress may be lost at any time: a worker then starts over, does work twice and nothing wrong. So a record that is
missing, cannot be decoded, or is of another version is simply a new start, and records need no way from one version
to the next. Each is a msgpack array whose first element is its version.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, Generic, Self, TypeVar

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.errors import Full, NotFound
from holdfast.upkeep.interface import Catalogue
from holdfast.upkeep.worker import TRANQUILITY_LOOKING, State, Wake

# A save is a commit with a sync: once in a while costs nothing, and what is done twice after a kill stays short.
SAVE_SECONDS = 15.0

# A rate forgets: what was done this long ago no longer counts.
RATE_MEMORY_SECONDS = 300.0

# How often a chore that rests between two passes counts the time and keeps it.
LOOK_SECONDS = 300.0


class Record(msgspec.Struct, array_like=True):
    """The base of progress records; the defaults of its fields are a new start."""

    VERSION: ClassVar[int] = 1

    version: int = 1

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        try:
            record = msgspec.msgpack.decode(data, type=cls)
        except msgspec.MsgspecError:
            return cls()
        return record if record.version == cls.VERSION else cls()


R = TypeVar("R", bound=Record)


async def load(catalogue: Catalogue, name: str, kind: type[R]) -> R:
    """The record kept under `name`, or a new start."""
    try:
        return kind.decode(await catalogue.load_progress(name))
    except NotFound:
        return kind()


class Saver:
    """Saves a record under one name, seldom unless asked to."""

    def __init__(self, catalogue: Catalogue, name: str, clock: Clock) -> None:
        self._catalogue = catalogue
        self._name = name
        self._clock = clock
        self._saved_at = clock.monotonic()

    async def save(self, record: Record) -> None:
        """Raises what `save_progress` does: for orders, which must not be lost."""
        await self._catalogue.save_progress(self._name, record.encode())
        self._saved_at = self._clock.monotonic()

    async def keep(self, record: Record) -> None:
        """Save progress. On a full store it is lost: the work goes on, it may be what makes room."""
        try:
            await self.save(record)
        except Full:
            self._saved_at = self._clock.monotonic()

    async def keep_seldom(self, record: Record) -> None:
        if self._clock.monotonic() - self._saved_at >= SAVE_SECONDS:
            await self.keep(record)


class PassRecord(Record):
    """Where a chore that comes around stands."""

    under_way: bool = False
    """Whether a pass is; else it rests between two."""
    rested: float = 0.0
    """Seconds since the last pass ended during which some process was there to count them: time in which no upkeep ran
    does not count, and no wall clock is asked."""


P = TypeVar("P", bound=PassRecord)


class Passes(Generic[P]):
    """A chore that looks at everything in passes, `period_seconds` apart: the base of scrub, sweep and audit.

    A subclass says how a pass begins, goes one bounded step, and ends, all of it in the record; the record is kept
    seldom, so that a restart goes on about where it was.
    """

    tranquility = TRANQUILITY_LOOKING

    def __init__(self, name: str, kind: type[P], period_seconds: float, catalogue: Catalogue, clock: Clock) -> None:
        self.name = name
        self.record: P | None = None
        """None before the first step."""
        self._kind = kind
        self._period_seconds = period_seconds
        self._clock = clock
        self._catalogue = catalogue
        self._saver = Saver(catalogue, name, clock)
        self._wake = Wake(clock)
        self._counted_at = 0.0

    async def request(self) -> None:
        """Begin a pass now, unless one is under way."""
        record = await self._load()
        record.rested = self._period_seconds
        self._wake.set()

    async def work(self) -> State:
        record = await self._load()
        now = self._clock.monotonic()
        self._age(record, now - self._counted_at)
        self._counted_at = now
        if not record.under_way:
            if not self._due(record):
                await self._saver.keep_seldom(record)
                return State.IDLE
            self._begin(record)
            record.under_way = True
        if await self._step(record):
            await self._saver.keep_seldom(record)
            return State.BUSY
        self._end(record)
        record.under_way, record.rested = False, 0.0
        await self._saver.keep(record)
        return State.IDLE

    async def wait_for_work(self) -> None:
        await self._wake.wait(LOOK_SECONDS)

    async def _load(self) -> P:
        if self.record is None:
            self.record = await load(self._catalogue, self.name, self._kind)
            self._counted_at = self._clock.monotonic()
        return self.record

    def _age(self, record: P, seconds: float) -> None:
        """Let time pass."""
        record.rested += seconds

    def _due(self, record: P) -> bool:
        return record.rested >= self._period_seconds

    def _begin(self, record: P) -> None:
        """Make the record that of a new pass."""
        raise NotImplementedError

    async def _step(self, record: P) -> bool:
        """Go on from where the record says; whether there is more to do. Raises HoldfastError, and is tried again."""
        raise NotImplementedError

    def _end(self, record: P) -> None:
        """Note what the whole pass found."""


@dataclass(slots=True)
class Step:
    count: float = 0.0
    """How much was done: set by whoever does the step."""


class Rate:
    """How much gets done per second, rests included: a mean in which the past fades."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._done = 0.0
        self._seconds = 0.0
        self._ended_at: float | None = None

    @contextmanager
    def measured(self) -> Iterator[Step]:
        """Measure one step. A step that raises is not counted."""
        started = self._clock.monotonic()
        step = Step()
        yield step
        now = self._clock.monotonic()
        # The throttle's rest belongs to the pace; a night without work does not.
        resting = 0.0 if self._ended_at is None else min(started - self._ended_at, 4 * (now - started))
        self._add(step.count, now - started + resting)
        self._ended_at = now

    def _add(self, count: float, seconds: float) -> None:
        kept = max(0.0, 1.0 - seconds / RATE_MEMORY_SECONDS)
        self._done = self._done * kept + count
        self._seconds = self._seconds * kept + seconds

    @property
    def per_second(self) -> float:
        """0 when nothing was done yet."""
        return self._done / self._seconds if self._seconds > 0 else 0.0
