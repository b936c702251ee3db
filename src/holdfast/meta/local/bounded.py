"""Calls to drives that may hang: each is waited for only so long, and a drive that owes an answer is left alone.

A drive that hangs without an error would hold up everyone who waits for the store's lock. So whoever calls a drive does
it in a thread of that drive's and waits for a time that is given; then it is OSError(ETIMEDOUT), and the drive is
treated as one that failed.

What was given up is still under way, and may take effect at any time. Rules that keep that from doing harm:

1. As long as it is under way the drive is late: every call to it, from any thread of any process of the run, fails at
   once. So a late call is the last that the drive meets of all that was begun before somebody gave up, and nothing is
   ever laid on top of what it may change.
2. A lock in the run directory says that a drive is late. Who gives up takes it before going on, and so before letting
   go of the store's lock; it is let go of when the call has returned. The kernel frees it when the process has ended,
   which is after the last of its threads, and so after the call.
3. One step arrives late, not several: an action of many steps ends at the next.
4. Who cannot take that lock waits for the call, however long.

So a late drive counts as lost: no epoch takes it for a mirror, and its witness counts neither for a promise nor for an
acceptance. When it answers again it is what any drive is that was away: it has the witness of an older epoch, and
becomes a mirror by being made anew.
"""

import errno
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Generic, TypeVar

from holdfast.core.disk import Disk, File, Space
from holdfast.core.ids import Buffer, DriveId
from holdfast.meta.limits import DRIVE_SUSPECT_SECONDS, UPKEEP_SUSPECT_SECONDS
from holdfast.meta.local.run import Run

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one call to a drive may take before the drive counts as lost, seconds."""

    commit: float = DRIVE_SUSPECT_SECONDS
    upkeep: float = UPKEEP_SUSPECT_SECONDS


Owners = Callable[[], Mapping[Path, DriveId]]
"""Which drive each metadata directory is on."""


class _Call(Generic[T]):
    """Something that is done in a thread, and may be given up by who waits for it."""

    __slots__ = ("_action", "_change", "_done", "_error", "_late", "_returned", "_value", "drive")

    def __init__(self, drive: DriveId, action: Callable[[], T]) -> None:
        self.drive = drive
        self._action = action
        self._value: T
        self._error: BaseException | None = None
        self._done = threading.Lock()
        self._done.acquire()
        self._change = threading.Lock()
        self._returned = False
        self._late: int | None = None

    @property
    def is_given_up(self) -> bool:
        return self._late is not None

    def run(self) -> None:
        try:
            self._value = self._action()
        except BaseException as error:  # noqa: BLE001  it goes to who waits for it
            self._error = error

    def finish(self) -> bool:
        """Say that it has returned; whether it had been given up."""
        with self._change:
            self._returned = True
            if self._late is not None:
                os.close(self._late)
        self._done.release()
        return self._late is not None

    def wait(self, run: Run, seconds: float) -> T:
        """What it returned. Raises what it raised, and OSError(ETIMEDOUT) when it has not returned in time."""
        if not self.end(run, seconds):
            raise _timed_out(self.drive)
        if self._error is not None:
            raise self._error
        return self._value

    def end(self, run: Run, seconds: float) -> bool:
        """Wait until it has returned; False when it was given up. Once."""
        if self._done.acquire(timeout=seconds):
            return True
        if self._give_up(run):
            return False
        self._done.acquire()
        return True

    def _give_up(self, run: Run) -> bool:
        with self._change:
            if self._returned:
                return False
            try:
                self._late = run.hold_late(self.drive)
            except OSError:
                return False
            return True


def _timed_out(drive: DriveId) -> OSError:
    return OSError(errno.ETIMEDOUT, "it does not answer", f"drive {drive.hex()}")


class _Current(threading.local):
    call: _Call[object] | None = None


_current = _Current()
"""The call that the thread is in."""


class _Worker:
    """A thread that makes one call at a time."""

    def __init__(self, drive: DriveId, idle: "deque[_Worker]", returned: Callable[[], None]) -> None:
        self.is_done = False
        """It ends when the call that it is in has returned."""
        self._idle = idle
        self._returned = returned
        self.calls: SimpleQueue[_Call[object] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._work, name=f"meta-drive-{drive.hex()[:8]}", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        while (call := self.calls.get()) is not None:
            _current.call = call
            call.run()
            _current.call = None
            self._idle.append(self)
            if call.finish():
                self._returned()
            if self.is_done:
                return
            # Its result is not kept alive until the next.
            del call


class DriveThreads:
    """The threads in which one process calls its drives: as many for each as call it at once."""

    def __init__(self, run: Run, returned: Callable[[], None]) -> None:
        """`returned` is called when a call that had been given up has returned."""
        self._run = run
        self._returned = returned
        self._idle: defaultdict[DriveId, deque[_Worker]] = defaultdict(deque)
        self._workers: list[_Worker] = []

    def is_late(self, drive: DriveId) -> bool:
        return self._run.is_late(drive)

    def call(self, drive: DriveId, action: Callable[[], T], seconds: float) -> T:
        """Raises OSError(ETIMEDOUT) when the drive is late, or becomes so."""
        current = _current.call
        if current is not None and current.drive == drive:
            if current.is_given_up:
                raise _timed_out(drive)
            return action()
        return self._start(drive, action).wait(self._run, seconds)

    def call_each(self, actions: Mapping[DriveId, Callable[[], T]], seconds: float) -> dict[DriveId, T | OSError]:
        """Do something on several drives at once, all within the same time; what came of each.

        What an action raises that is no OSError is raised when all of them have ended.
        """
        outcomes: dict[DriveId, T | OSError] = {}
        begun: dict[DriveId, _Call[T]] = {}
        try:
            for drive, action in actions.items():
                try:
                    begun[drive] = self._start(drive, action)
                except OSError as error:
                    outcomes[drive] = error
            while begun:
                drive, call = begun.popitem()
                try:
                    outcomes[drive] = call.wait(self._run, seconds)
                except OSError as error:
                    outcomes[drive] = error
                    if call.is_given_up:
                        # The others began at the same time.
                        seconds = 0
        finally:
            # Whoever goes on after a bug must not meet a write that is still under way.
            for call in begun.values():
                call.end(self._run, seconds)
        return outcomes

    def _start(self, drive: DriveId, action: Callable[[], T]) -> _Call[T]:
        if self._run.is_late(drive):
            raise _timed_out(drive)
        call = _Call(drive, action)
        idle = self._idle[drive]
        try:
            worker = idle.pop()
        except IndexError:
            worker = _Worker(drive, idle, self._returned)
            self._workers.append(worker)
        worker.calls.put(call)  # type: ignore[arg-type]
        return call

    def close(self) -> None:
        """End the threads; those whose calls have not returned end when they have. Nobody calls a drive any more."""
        for worker in self._workers:
            worker.is_done = True
            worker.calls.put(None)
        for idle in self._idle.values():
            for worker in idle:
                worker.thread.join()


class BoundedDisk:
    """A disk whose calls to the drives in `owners` end within `seconds`; those to other places may hang."""

    def __init__(self, disk: Disk, threads: DriveThreads, owners: Owners, seconds: float) -> None:
        self.disk = disk
        self.threads = threads
        self._owners = owners
        self._seconds = seconds

    def drive_of(self, path: Path) -> DriveId | None:
        owners = self._owners()
        for place in (path, *path.parents):
            if place in owners:
                return owners[place]
        return None

    def call(self, drive: DriveId | None, action: Callable[[], T]) -> T:
        """Do something on a drive, of however many steps, within the time for one call. Raises OSError."""
        return action() if drive is None else self.threads.call(drive, action, self._seconds)

    def call_each(self, actions: Mapping[DriveId, Callable[[], T]]) -> dict[DriveId, T | OSError]:
        """As `call`, on several drives at once; what came of each."""
        return self.threads.call_each(actions, self._seconds)

    def _at(self, path: Path, action: Callable[[], T]) -> T:
        return self.call(self.drive_of(path), action)

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        drive = self.drive_of(path)
        file = self.call(drive, partial(self.disk.open, path, create=create, exclusive=exclusive, direct=direct))
        return file if drive is None else BoundedFile(self, drive, file)

    def read_file(self, path: Path) -> bytes:
        return self._at(path, partial(self.disk.read_file, path))

    def replace_file(self, path: Path, data: Buffer, *, mode: int = 0o600) -> None:
        self._at(path, partial(self.disk.replace_file, path, data, mode=mode))

    def list_directory(self, path: Path) -> list[str]:
        return self._at(path, partial(self.disk.list_directory, path))

    def make_directory(self, path: Path) -> None:
        self._at(path, partial(self.disk.make_directory, path))

    def rename(self, source: Path, target: Path) -> None:
        self._at(source, partial(self.disk.rename, source, target))

    def unlink(self, path: Path) -> None:
        self._at(path, partial(self.disk.unlink, path))

    def sync_directory(self, path: Path) -> None:
        self._at(path, partial(self.disk.sync_directory, path))

    def exists(self, path: Path) -> bool:
        return self._at(path, partial(self.disk.exists, path))

    def space(self, path: Path) -> Space:
        return self._at(path, partial(self.disk.space, path))

    def mount(self, path: Path) -> str:
        return self._at(path, partial(self.disk.mount, path))

    def kind(self, path: Path) -> str:
        return self._at(path, partial(self.disk.kind, path))


class BoundedFile:
    """A file of a BoundedDisk, on a drive."""

    def __init__(self, disk: BoundedDisk, drive: DriveId, file: File) -> None:
        self._disk = disk
        self._drive = drive
        self._file = file

    def read_into(self, buffer: memoryview, offset: int) -> int:
        # A call that was given up would go on filling memory that has come to serve another purpose.
        own = memoryview(bytearray(len(buffer)))
        count = self._disk.call(self._drive, partial(self._file.read_into, own, offset))
        buffer[:count] = own[:count]
        return count

    def read_cached_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        own = [memoryview(bytearray(len(buffer))) for buffer in buffers]
        count = self._disk.call(self._drive, partial(self._file.read_cached_into, own, offset))
        for buffer, read in zip(buffers, own, strict=True):
            buffer[:] = read
        return count

    def expect(self, offset: int, length: int) -> None:
        self._disk.call(self._drive, partial(self._file.expect, offset, length))

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        """`buffers` must not change afterwards: a call that was given up still reads them."""
        self._disk.call(self._drive, partial(self._file.write, buffers, offset))

    def sync(self) -> None:
        self._disk.call(self._drive, self._file.sync)

    def allocate(self, length: int) -> None:
        self._disk.call(self._drive, partial(self._file.allocate, length))

    def truncate(self, length: int) -> None:
        self._disk.call(self._drive, partial(self._file.truncate, length))

    def size(self) -> int:
        return self._disk.call(self._drive, self._file.size)

    def lock(self, *, exclusive: bool) -> None:
        self._disk.call(self._drive, partial(self._file.lock, exclusive=exclusive))

    def unlock(self) -> None:
        self._disk.call(self._drive, self._file.unlock)

    def is_at(self, path: Path) -> bool:
        return self._disk.call(self._drive, partial(self._file.is_at, path))

    def is_linked(self) -> bool:
        return self._disk.call(self._drive, self._file.is_linked)

    def close(self) -> None:
        # While a late call may be using the descriptor it must not become another file's: it goes with its last user.
        if not self._disk.threads.is_late(self._drive):
            self._file.close()
