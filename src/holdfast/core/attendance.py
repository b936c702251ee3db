"""Who looks into files that are mapped into memory, so that who dies of it is noticed.

LMDB reads its files through memory and checks little of what it finds. Inner pages that somebody scribbled over, or a
drive that was pulled, can end the process that reads them, by SIGSEGV or SIGBUS. Who starts next would read the same
page, and end as well. Every such file can be made again from others: so it is enough to know of the deaths.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

# A place at which so many processes died is not entered again. One death proves little: any process may be killed, and
# may just have been reading. A second at the same place is taken for the place's fault.
DEATHS_MAX_COUNT = 2


class Attendance(Protocol):
    """What the processes on one machine know of each other's deaths. Safe to use from several threads."""

    def inside(self, place: str) -> AbstractContextManager[None]:
        """Who dies within this context, by any signal, dies at `place` (at most 63 bytes). Synchronous code only."""
        ...

    def deaths(self, place: str) -> int:
        """How many processes died at a place since it was forgotten."""
        ...

    def forget(self, place: str) -> None:
        """What is there was made anew, or was closed in order."""
        ...


class NoAttendance:
    """For who is alone, or does not care."""

    def inside(self, place: str) -> AbstractContextManager[None]:
        return nullcontext()

    def deaths(self, place: str) -> int:
        return 0

    def forget(self, place: str) -> None:
        return
