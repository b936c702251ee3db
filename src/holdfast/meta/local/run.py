"""The run directory: how the processes that have one store open take turns. Shared memory, not a disk.

It lies on a file system that a boot empties (tmpfs), and nothing in it is needed to start: who comes first, with
nobody else there, makes it anew from the drives. So it goes to the operating system directly, not through `Disk`.

- `lock`     the store-wide lock, held while a batch is committed; the kernel frees it when the holder dies
- `members`  locked shared by everyone who has the store open: who gets it exclusively is alone
- `control`  one page that all map: `generation` rises whenever `state` changed; `dirty` says that the holder of the
             lock began something, and is set when it died before it ended; `tight` that space is short
- `alive-*`  who died while it looked into a view (see `attendance`)
- `late-*`   locked while a call to that drive, which somebody gave up, may still take effect (see `bounded`)
- `care`     locked by the process that sees to checkpoints and mirrors
- `state`    epoch, mirrors, paths, the view's place: written under the lock, read when the generation changed

Rule. Everything but reading `generation`, and what concerns late drives, happens under the lock.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

from holdfast.core.errors import Corrupt
from holdfast.meta.local.attendance import RunAttendance

CLEAN = 0
"""Nothing is under way."""
APPENDING = 1
"""A record may be on some mirrors and not on others, and not in the view: the log says what holds."""
CHANGING = 2
"""The mirrors, or the view, were being changed: the witnesses say what holds."""

_CONTROL_BYTES = 4096
_GENERATION, _DIRTY, _TIGHT, _WAS_LATE = range(4)

# struct flock of 64-bit Linux: type, whence, start, length, process. Locks of an open file, not of the process: another
# descriptor of the same process sees them, and closing that leaves them be.
_FLOCK = struct.Struct("@hhqqi4x")


class State(msgspec.Struct, array_like=True, frozen=True):
    """What the processes of one run share, beyond the drives themselves."""

    run: bytes
    """Random, names this run of the store."""
    epoch: int
    mirrors: tuple[bytes, ...]
    roster: tuple[bytes, ...]
    losses: int
    metacopies: int
    paths: dict[bytes, str]
    """Where each drive's metadata directory is."""
    view: str
    """Directory of the view."""
    map_bytes: int
    writable: str
    """"" when commits are possible, else why they are not."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(State)


class StoreLock:
    """The store-wide lock: a context manager that waits. Not reentrant; one thread of a process uses it at a time."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._descriptor)


class Run:
    """This process's part in the run directory `path`."""

    def __init__(self, path: Path) -> None:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = path
        self._lock_path = path / "lock"
        self.attendance = RunAttendance(path)
        self._members = os.open(path / "members", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        control = os.open(path / "control", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(control).st_size < _CONTROL_BYTES:
            os.ftruncate(control, _CONTROL_BYTES)
        self._map = mmap.mmap(control, _CONTROL_BYTES)
        os.close(control)
        self._words = memoryview(self._map).cast("Q")

    def new_lock(self) -> StoreLock:
        """The store-wide lock, for one thread."""
        return StoreLock(self._lock_path)

    @contextmanager
    def caring(self, *, wait: bool = True) -> Iterator[None]:
        """Be the one who sees to checkpoints and mirrors. Unless `wait`, BlockingIOError when somebody else does."""
        descriptor = os.open(self.path / "care", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(descriptor)

    def join(self) -> bool:
        """Become a member; whether nobody else was one. Under the store lock."""
        try:
            fcntl.flock(self._members, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        fcntl.flock(self._members, fcntl.LOCK_SH)
        return alone

    def is_alone(self) -> bool:
        """Whether this is the only member. Under the store lock, which keeps others from joining meanwhile."""
        try:
            fcntl.flock(self._members, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            # A conversion that fails has let go of the old lock.
            fcntl.flock(self._members, fcntl.LOCK_SH)
            return False
        fcntl.flock(self._members, fcntl.LOCK_SH)
        return True

    def leave(self) -> None:
        """Be no member any more. Under the store lock, in which the view was left: who joins between that and `close`
        would take it for one that is in use, and write to what says of itself that it may be believed after a boot."""
        fcntl.flock(self._members, fcntl.LOCK_UN)

    @property
    def generation(self) -> int:
        return self._words[_GENERATION]

    @property
    def dirty(self) -> int:
        return self._words[_DIRTY]

    @dirty.setter
    def dirty(self, mark: int) -> None:
        self._words[_DIRTY] = mark

    @property
    def tight(self) -> bool:
        return self._words[_TIGHT] != 0

    @tight.setter
    def tight(self, tight: bool) -> None:
        self._words[_TIGHT] = int(tight)

    def read_state(self) -> State:
        """Raises Corrupt when there is none, or it is not one."""
        try:
            return _decoder.decode((self.path / "state").read_bytes())
        except (OSError, msgspec.MsgspecError) as error:
            raise Corrupt(f"the run directory {self.path} holds no state") from error

    def write_state(self, state: State) -> None:
        """Publish a state to every member."""
        temporary = self.path / "state.new"
        temporary.write_bytes(_encoder.encode(state))
        temporary.replace(self.path / "state")
        self._words[_GENERATION] += 1

    def _late_path(self, drive: bytes) -> Path:
        return self.path / f"late-{drive.hex()}"

    def hold_late(self, drive: bytes) -> int:
        """Say to every process that a drive owes an answer, until the descriptor that this returns is closed."""
        descriptor = os.open(self._late_path(drive), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        except OSError:
            os.close(descriptor)
            raise
        # Stays: it only says that it is worth looking.
        self._words[_WAS_LATE] = 1
        return descriptor

    def is_late(self, drive: bytes) -> bool:
        """Whether a drive owes any process an answer. Costs nothing in a run in which none ever did."""
        if not self._words[_WAS_LATE]:
            return False
        try:
            descriptor = os.open(self._late_path(drive), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            return bool(_FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        self.attendance.close()
        self._words.release()
        self._map.close()
        os.close(self._members)
