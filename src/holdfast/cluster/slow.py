"""Drives that were too slow a moment ago: asked last, until they have had time to recover."""

from collections.abc import Iterable

from holdfast.core.clock import Clock
from holdfast.core.ids import DriveId


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
