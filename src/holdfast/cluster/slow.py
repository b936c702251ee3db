"""Drives that were too slow a moment ago: asked last, until they have had time to recover.

Slow is who needs far longer than the others did for the same block. When all are busy nobody is slow: to go round one
would only make more work for the rest.
"""

from collections.abc import Collection, Container, Iterable

from holdfast.core.clock import Clock
from holdfast.core.ids import DriveId

# How many times as long as the others: a group commit that is just too late for one round is answered after two.
SLOW_FACTOR = 2.0


class SlowDrives:
    """Those that were slow within the last `penalty_seconds`."""

    def __init__(self, clock: Clock, penalty_seconds: float) -> None:
        self._clock = clock
        self._penalty_seconds = penalty_seconds
        self._until: dict[DriveId, float] = {}

    def note(self, drives: Iterable[DriveId]) -> None:
        until = self._clock.monotonic() + self._penalty_seconds
        for drive in drives:
            self._until[drive] = until

    def left_out(self, order: Iterable[DriveId], attached: Container[DriveId], needed: int) -> Collection[DriveId]:
        """The slow ones of the attached drives in `order`; nobody, if without them fewer than `needed` were left."""
        if not self._until:
            return ()
        drives = [drive for drive in order if drive in attached]
        slow = {drive for drive in drives if self.is_slow(drive)}
        return slow if len(drives) - len(slow) >= needed else ()

    def is_slow(self, drive: DriveId) -> bool:
        if not self._until:
            return False
        until = self._until.get(drive)
        if until is None:
            return False
        if until > self._clock.monotonic():
            return True
        # Reads ask from several threads at once.
        self._until.pop(drive, None)
        return False
