"""How the store is, in numbers and in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from holdfast.core.clock import Clock

# A rate forgets: after this long a step weighs a third.
RATE_MEMORY_SECONDS = 300.0

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


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

    def seconds_for(self, count: float) -> float | None:
        """How long `count` more will take at this pace; None when nothing was measured yet."""
        if count <= 0:
            return 0.0
        if self._done <= 0 or self._seconds <= 0:
            return None
        return count * self._seconds / self._done


@dataclass(frozen=True, slots=True)
class UnderProtected:
    """Contents that survive fewer losses than the store's code promises, until they are recoded."""

    code: str
    contents: int
    length: int
    """Plain bytes."""


@dataclass(frozen=True, slots=True)
class Health:
    """What `status` shows of the safety of what is stored."""

    damaged: int
    """Blocks in the repair outbox."""
    seconds_left: float | None
    """Until they are repaired, at the measured pace; None when that is not known."""
    lost: int
    """Blocks that cannot be read with the drives that answer."""
    waiting: int
    """Blocks that wait for a drive that does not answer."""
    moving: int
    """Layouts still to be left: more than none while a rebalance or drain runs."""
    under_protected: tuple[UnderProtected, ...]
    grace_gave_way: bool

    @property
    def healthy(self) -> bool:
        return not (self.damaged or self.lost or self.moving)

    def words(self) -> str:
        """One line: "healthy", or what is the matter, worst first."""
        said = []
        if self.lost:
            said.append(f"{_count(self.lost, 'block')} cannot be read now")
        if self.damaged:
            said.append(f"repair needed: {_count(self.damaged, 'block')}, {about(self.seconds_left)}")
        if self.waiting:
            said.append(f"{_count(self.waiting, 'block')} wait{'s' if self.waiting == 1 else ''} for a missing drive")
        if self.moving:
            said.append("moving data to its new drives")
        return "; ".join(said) or "healthy"

    def notes(self) -> list[str]:
        """What is no fault but should be known."""
        notes = [
            f"{_count(group.contents, 'object')} kept as {group.code} survive{'s' if group.contents == 1 else ''} "
            "fewer lost drives than the store's setting: `holdfast recode` changes that"
            for group in self.under_protected
        ]
        if self.grace_gave_way:
            notes.append(
                "space is short: deleted data is not kept for the grace, so older metadata backups may not "
                "restore whole"
            )
        return notes


def about(seconds: float | None) -> str:
    """A duration as people say it: "about 3 hours", "time unknown yet"."""
    if seconds is None:
        return "time unknown yet"
    for unit, length in _UNITS:
        if seconds >= length:
            return f"about {_count(round(seconds / length), unit)}"
    return "less than a minute"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
