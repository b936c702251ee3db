"""Which environment is a drive's index: the one that is believed, and what takes its place when it is not.

Rules.
- What a power cut leaves of an index is not looked at. `index/state` says under which mount it was written; a killed
  process leaves the page cache, and so the index, whole, but another mount means that unsynced writes may be lost, and
  the index is rebuilt. A clean close syncs it and says so.
- Rebuilding is exclusive: every writer holds a shared lock on `index/gate` while it applies a batch, the rebuilder an
  exclusive one. The new environment is a new directory. When all is in it, the old one is unlinked, by which everybody
  who has it open notices at the next access, and then the state file, replaced atomically, points at the new one. In
  the other order a rebuilder that is killed in between would leave others writing to what nobody opens any more.
- Nobody reads an environment before all is in it, and one that could not be filled leaves nothing behind.
- An environment in which processes died is not opened again, but made anew (`core.attendance`).
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from holdfast.core.attendance import DEATHS_MAX_COUNT, Attendance
from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk, File
from holdfast.core.errors import Corrupt, NodeDown
from holdfast.core.ids import DriveId
from holdfast.drives.environment import Environment, StaleIndex
from holdfast.drives.identity import holds_drive
from holdfast.drives.rebuild import fill, read_segments
from holdfast.drives.segments import SEGMENTS_NAME

INDEX_NAME = "index"

# Attempts to get hold of an index that others damage or delete meanwhile, before it counts as hopeless.
RECOVERIES_MAX_COUNT = 10

# How often to look again for a lock that somebody else holds.
_LOCK_POLL_SECONDS = 0.002

_STATE_FORMAT = 1


class _State(msgspec.Struct, array_like=True, frozen=True):
    """What `index/state` holds."""

    format: int
    environment: str
    """Name of the directory of the LMDB environment."""
    mount: str
    clean: bool


class TrustedEnvironment:
    """The environment that is the index of one drive, for one process. Every call blocks; any thread may make it."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        drive: DriveId,
        randomness: Randomness,
        map_bytes: int,
        attendance: Attendance,
    ) -> None:
        """Open it, or rebuild it. Raises StaleIndex, Full, OSError, InvalidRequest for a newer version's segments."""
        self.directory = directory
        self._root = directory / INDEX_NAME
        self._segments = directory / SEGMENTS_NAME
        self._disk = disk
        self._drive = drive
        self._randomness = randomness
        self._map_bytes = map_bytes
        self._attendance = attendance
        # Who writes, recovers or closes: one thread at a time. The lock on the gate is the process's, not a thread's.
        self._writes = threading.Lock()
        disk.make_directory(self._root)
        disk.make_directory(self._segments)
        self._gate = disk.open(self._root / "gate", create=True)
        self._users = disk.open(self._root / "users", create=True)
        with self._deciding():
            self.current = self._opened_or_rebuilt()
            """For reading. Another one takes its place when it has to be recovered."""

    @contextmanager
    def writing(self) -> Iterator[Environment]:
        """The environment, for writing: nobody rebuilds the index meanwhile."""
        with self._writes, self._locked(self._gate, exclusive=False):
            yield self.current

    def recover(self, error: StaleIndex) -> None:
        """Open the environment that took the place of the one that failed; rebuild it when there is none.

        Raises NodeDown when the drive itself is gone, Full when there is no room for a new index.
        """
        with self._writes:
            if self.current.name != error.environment or (error.is_sound and self.current.catch_up()):
                return
            # Readers get StaleIndex from here on, and wait for `_writes` in a thread rather than block the loop.
            self.current.drop()
            for _ in range(RECOVERIES_MAX_COUNT):
                if not holds_drive(self._disk, self.directory, self._drive):
                    raise NodeDown(f"{self.directory} does not hold its drive any more: mount the disk, or replace it")
                try:
                    self.current = self._replacement(error)
                except (FileNotFoundError, StaleIndex):
                    # Somebody is deleting the index right now.
                    continue
                else:
                    return
        raise NodeDown(f"the index of {self.directory} disappears as soon as it is made: who deletes it?")

    def close(self) -> None:
        """Leave the index; the last process to do so syncs it and marks it clean."""
        with self._writes:
            name = self.current.name
            try:
                self.current.check()
                with self._deciding():
                    self._users.lock(exclusive=True)
                    if self._read_state().environment == name:
                        self.current.sync()
                        self._write_state(name, clean=True)
                        self._attendance.forget(self._place(name))
            except (OSError, Corrupt, StaleIndex):
                # Somebody else has it open, or the disk is gone: the mark stays as it is, which is always safe.
                pass
            self.current.drop()
            self._users.close()
            self._gate.close()

    def _opened_or_rebuilt(self) -> Environment:
        try:
            self._users.lock(exclusive=True)
            alone = True
        except BlockingIOError:
            alone = False
        self._lock(self._users, exclusive=False)
        mount = self._disk.mount(self.directory)
        try:
            state = self._read_state()
            # Whoever has it open trusts it, and the file system has been there all the time.
            if state.clean or state.mount == mount or not alone:
                if state.clean or state.mount != mount:
                    self._write_state(state.environment, clean=False)
                return self._trusted(state.environment)
        except (Corrupt, StaleIndex):
            pass
        return self._rebuilt()

    def _replacement(self, error: StaleIndex) -> Environment:
        self._disk.make_directory(self._root)
        with self._deciding():
            self._restore_locks()
            try:
                state = self._read_state()
                if state.environment != error.environment:
                    return self._trusted(state.environment)
            except (Corrupt, StaleIndex):
                pass
            return self._rebuilt()

    def _trusted(self, name: str) -> Environment:
        """An environment of earlier, unless processes died in it. Raises StaleIndex."""
        if self._attendance.deaths(self._place(name)) >= DEATHS_MAX_COUNT:
            raise StaleIndex(f"the index of {self.directory} has killed who read it", name)
        with self._attendance.inside(self._place(name)):
            return self._open(name)

    def _rebuilt(self) -> Environment:
        """The index, made again from the segments. The caller decides alone (`_deciding`)."""
        name = self._randomness.bytes(8).hex()
        with self._locked(self._gate, exclusive=True), ExitStack() as undo:
            undo.callback(shutil.rmtree, self._root / name, ignore_errors=True)
            environment = self._open(name, create=True)
            undo.callback(environment.drop)
            fill(environment, read_segments(self._disk, self._segments, self._drive))
            for entry in os.scandir(self._root):
                if entry.is_dir() and entry.name != name:
                    shutil.rmtree(entry.path)
                    self._attendance.forget(self._place(entry.name))
            self._write_state(name, clean=False)
            undo.pop_all()
            return environment

    def _open(self, name: str, *, create: bool = False) -> Environment:
        inside = partial(self._attendance.inside, self._place(name))
        return Environment(self._disk, self._root / name, self._map_bytes, inside, create=create)

    def _place(self, environment: str) -> str:
        return f"{self._drive.hex()}/{environment}"

    def _read_state(self) -> _State:
        try:
            state = msgspec.msgpack.decode(self._disk.read_file(self._root / "state"), type=_State)
        except (FileNotFoundError, msgspec.MsgspecError):
            raise Corrupt(f"{self._root / 'state'} is missing or cannot be read") from None
        if state.format != _STATE_FORMAT or "/" in state.environment:
            raise Corrupt(f"{self._root / 'state'} has another format")
        return state

    def _write_state(self, environment: str, *, clean: bool) -> None:
        state = _State(_STATE_FORMAT, environment, self._disk.mount(self.directory), clean)
        self._disk.replace_file(self._root / "state", msgspec.msgpack.encode(state))

    def _restore_locks(self) -> None:
        """Somebody may have deleted the whole index, lock files and all.

        Whoever still holds the old ones and goes on writing had synced that record before the files went: a rebuild
        finds it in its segment.
        """
        if not self._gate.is_at(self._root / "gate"):
            self._gate = self._disk.open(self._root / "gate", create=True)
        if not self._users.is_at(self._root / "users"):
            self._users = self._disk.open(self._root / "users", create=True)
            self._lock(self._users, exclusive=False)

    @contextmanager
    def _deciding(self) -> Iterator[None]:
        """Alone among those who open, close or rebuild the index."""
        file = self._disk.open(self._root / "lock", create=True)
        try:
            self._lock(file, exclusive=True)
            yield
        finally:
            file.close()

    @contextmanager
    def _locked(self, file: File, *, exclusive: bool) -> Iterator[None]:
        self._lock(file, exclusive=exclusive)
        try:
            yield
        finally:
            file.unlock()

    def _lock(self, file: File, *, exclusive: bool) -> None:
        while True:
            try:
                file.lock(exclusive=exclusive)
                return
            except BlockingIOError:
                threading.Event().wait(_LOCK_POLL_SECONDS)
