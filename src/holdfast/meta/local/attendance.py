"""`core.attendance` by files in the run directory.

Rules. Each process has a file `alive-<process>-<number>`, locked for as long as it lives and mapped into its memory. It
has a slot for each thread, which holds the name of the place where the thread is, or zeros. Marking a place is thus two
copies of 64 bytes and no system call, and the mark outlives the process. A file that is not locked is that of a process
that died; what its slots hold is where.
"""

import fcntl
import itertools
import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType

PREFIX = "alive-"
_SLOT_BYTES = 64
# More threads than a process reads with; should there be more, they share the slots, and a death may go unnoticed.
_SLOTS_COUNT = 128
_EMPTY = bytes(_SLOT_BYTES)

_numbers = itertools.count()


@lru_cache(maxsize=256)
def _encode(place: str) -> bytes:
    encoded = place.encode()
    assert 0 < len(encoded) < _SLOT_BYTES, place
    return encoded.ljust(_SLOT_BYTES, b"\0")


class _Inside:
    """The context in which a thread is at a place; afterwards it is where it was before. That thread may enter it again
    once it has left it."""

    __slots__ = ("_before", "_end", "_map", "_place", "_start")

    def __init__(self, page: mmap.mmap, start: int, place: bytes) -> None:
        self._map = page
        self._start = start
        self._end = start + _SLOT_BYTES
        self._place = place

    def __enter__(self) -> None:
        self._before = self._map[self._start : self._end]
        self._map[self._start : self._end] = self._place

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._map[self._start : self._end] = self._before


class RunAttendance:
    """This process's part, until `close`."""

    def __init__(self, run: Path) -> None:
        run.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run = run
        self._path, self._descriptor = _come(run)
        self._map = mmap.mmap(self._descriptor, _SLOT_BYTES * _SLOTS_COUNT)
        self._threads = itertools.count()
        self._own = threading.local()

    def inside(self, place: str) -> _Inside:
        try:
            start: int = self._own.start
        except AttributeError:
            start = self._own.start = next(self._threads) % _SLOTS_COUNT * _SLOT_BYTES
        return _Inside(self._map, start, _encode(place))

    def deaths(self, place: str) -> int:
        wanted = _encode(place)
        return sum(wanted in _slots(data) for _, data in self._dead())

    def forget(self, place: str) -> None:
        gone = _encode(place)
        for path, data in self._dead():
            left = [slot for slot in _slots(data) if slot not in (gone, _EMPTY)]
            # Whoever else does the same meanwhile comes to the same end.
            with suppress(FileNotFoundError):
                if left:
                    path.write_bytes(b"".join(left))
                else:
                    path.unlink()

    def _dead(self) -> Iterator[tuple[Path, bytes]]:
        """The files of processes that died, and what they hold."""
        for path in sorted(self._run.glob(f"{PREFIX}*")):
            with suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield path, file.read()

    def close(self) -> None:
        """The orderly end. No thread is inside any place."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)
        # The page itself goes with the last who uses it.


def _come(run: Path) -> tuple[Path, int]:
    """Make a file, which gets its name when it is locked, so that who is alive never seems dead; and its descriptor."""
    while True:
        # Containers may share the directory and have processes of the same number.
        name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        unfinished = run / f"new-{name}"
        try:
            descriptor = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        os.ftruncate(descriptor, _SLOT_BYTES * _SLOTS_COUNT)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            (run / name).hardlink_to(unfinished)
        except FileExistsError:
            os.close(descriptor)
            continue
        finally:
            unfinished.unlink()
        return run / name, descriptor


def _slots(data: bytes) -> list[bytes]:
    return [data[start : start + _SLOT_BYTES] for start in range(0, len(data), _SLOT_BYTES)]
