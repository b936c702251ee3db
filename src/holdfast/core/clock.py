"""Time and chance, as they come in through constructors.

Only `cli/app.py` makes the real ones; the simulator hands out its own. Nothing else calls `time`, `datetime.now`,
`random` or `os.urandom`: a lint rule holds it.
"""

from typing import Protocol


class Clock(Protocol):
    """Time, of two kinds that must never be mixed."""

    def now_ns(self) -> int:
        """Wall-clock time, nanoseconds since 1970-01-01 UTC. May jump: for stamps that people read, never for order."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment. Never goes back: for waiting and for measuring."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait. A cancellation leaves nothing behind."""
        ...


class Randomness(Protocol):
    """Chance, of the strength that keys need."""

    def bytes(self, count: int) -> bytes:
        """`count` bytes that nobody can predict. Safe to call from any thread."""
        ...
