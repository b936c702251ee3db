"""The index of a drive: an LMDB environment that finds fragments, and that can always be made again from segments.

Rules.
- Never synced: what a power cut leaves of it is not looked at. `index/state` says under which mount it was written;
  a killed process leaves the page cache, and so the index, whole, but another mount means that unsynced writes may
  be lost, and the index is rebuilt. A clean close syncs it and says so.
- Rebuilding is exclusive: every writer holds a shared lock on `index/gate` while it applies a batch, the rebuilder an
  exclusive one. The new environment is a new directory; the state file, replaced atomically, points at it, and the
  old one is unlinked, by which everybody who has it open notices at the next access.
- Before each access the file is looked at: gone, another, or shorter than it was means `StaleIndex`; reading the map
  of a truncated file would kill the process. So is LMDB's table of locks (`mapped.readers`).
- LMDB forbids one process to open an environment twice, so handles of one drive in one process share it.
- An environment in which processes died is not opened again, but made anew (`core.attendance`).
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import lmdb
import msgspec

from holdfast.core.attendance import DEATHS_MAX_COUNT, Attendance, NoAttendance
from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk, File
from holdfast.core.errors import Corrupt, Full, NodeDown, NotFound, Unavailable
from holdfast.core.ids import DriveId
from holdfast.core.limits import GIB
from holdfast.drives.identity import holds_drive
from holdfast.drives.interface import FragmentInfo, FragmentKey
from holdfast.drives.reserve import NO_SPACE
from holdfast.drives.rows import (
    DATABASES,
    Databases,
    Row,
    SegmentBooks,
    Update,
    decode_info,
    decode_row,
    encode_key,
    read_books,
    read_clock,
)
from holdfast.drives.segments import (
    FIRST_GENERATION,
    Contents,
    Entry,
    is_ours,
    read_contents,
    segment_of,
    segment_path,
)
from holdfast.mapped.readers import ReaderTable, allocate_table

INDEX_NAME = "index"
SEGMENTS_NAME = "segments"

# Address space only: the file grows as rows come. Doubled when it is full.
MAP_BYTES = GIB

# Every process and thread that reads holds a slot; those of killed processes are cleared when the index is opened.
READERS_MAX_COUNT = 512

# Sequences that writers had reserved, but not yet written, when an index was lost stay below the new one's clock.
CLOCK_GAP_AFTER_REBUILD = 1 << 20

# Attempts to get hold of an index that others damage or delete meanwhile, before it counts as hopeless.
RECOVERIES_MAX_COUNT = 10

# How often to look again for a lock that somebody else holds.
_LOCK_POLL_SECONDS = 0.002

# Segments applied in one transaction of a rebuild: bounds its dirty pages.
_REBUILD_ENTRIES_PER_COMMIT = 20_000

_STATE_FORMAT = 1

T = TypeVar("T")


class StaleIndex(Unavailable):
    """The index under this handle was replaced, or is damaged: `Index.recover` with this error, then try again."""

    def __init__(self, message: str, environment: str) -> None:
        super().__init__(message)
        self.environment = environment
        """Which environment failed: whoever comes second finds it replaced already."""


class _State(msgspec.Struct, array_like=True, frozen=True):
    """What `index/state` holds."""

    format: int
    environment: str
    """Name of the directory of the LMDB environment."""
    mount: str
    clean: bool


# Errors by which LMDB says that what it reads makes no sense.
_DAMAGE = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.PanicError,
    lmdb.VersionMismatchError,
    lmdb.IncompatibleError,
    lmdb.BadDbiError,
    lmdb.BadValsizeError,
    lmdb.CursorFullError,
)


class _Share:
    """The handle that a process's drives on one path have in common."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.index: Index | None = None
        self.count = 0


# Never shrinks: a process sees few paths. A lock for each, so that several drives can rebuild at once.
_shares: dict[str, _Share] = {}


def acquire_index(
    directory: Path, disk: Disk, drive: DriveId, randomness: Randomness, map_bytes: int, attendance: Attendance
) -> "Index":
    """This process's handle on the index of the drive at `directory`; opened, or rebuilt, if it is the first."""
    share = _shares.setdefault(os.path.realpath(directory), _Share())
    with share.lock:
        if share.index is None:
            share.index = Index(directory, disk, drive, randomness, map_bytes, attendance)
        share.count += 1
        return share.index


def release_index(index: "Index") -> None:
    """Give up a handle; the last one closes the index."""
    for share in list(_shares.values()):
        with share.lock:
            if share.index is not index:
                continue
            share.count -= 1
            if share.count == 0:
                share.index = None
                index.close()
            return


class Index:
    """One drive's index. Every call blocks, and may come from any thread."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        drive: DriveId,
        randomness: Randomness,
        map_bytes: int,
        attendance: Attendance | None = None,
    ) -> None:
        self._directory = directory
        self._attendance = attendance or NoAttendance()
        self._root = directory / INDEX_NAME
        self._segments = directory / SEGMENTS_NAME
        self._disk = disk
        self._drive = drive
        self._randomness = randomness
        self._map_bytes = map_bytes
        # Growing the map wants no transaction of ours in flight: it takes both, writes first.
        self._writes = threading.Lock()
        self._reads = threading.Lock()
        self._environment: Any = None
        self._databases: Databases
        self._name = ""
        """Of the environment that is open."""
        self._data: Path = self._root
        self._inode = -1
        self._size = 0
        self._table: ReaderTable | None = None
        self._damaged = False
        self.rebuilt = 0
        """How often this handle has rebuilt the index."""
        disk.make_directory(self._root)
        disk.make_directory(self._segments)
        self._gate = disk.open(self._root / "gate", create=True)
        self._users = disk.open(self._root / "users", create=True)
        with self._deciding():
            self._open_or_rebuild()

    # Reading

    def lookup(self, key: FragmentKey) -> Row:
        """Raises NotFound, StaleIndex."""
        with self._read() as transaction:
            data = transaction.get(encode_key(key), db=self._databases.fragments)
        if data is None:
            raise NotFound(f"no fragment {key.index} of block {key.block.hex()}")
        return decode_row(data)

    def contains(self, keys: Sequence[FragmentKey]) -> list[bool]:
        with self._read() as transaction:
            return [transaction.get(encode_key(key), db=self._databases.fragments) is not None for key in keys]

    def page(self, after: FragmentKey | None, limit: int) -> list[FragmentInfo]:
        found: list[FragmentInfo] = []
        # The smallest key behind `after` is that with a zero appended.
        start = b"" if after is None else encode_key(after) + b"\0"
        with self._read() as transaction, transaction.cursor(db=self._databases.fragments) as cursor:
            if limit > 0 and cursor.set_range(start):
                for key, row in cursor:
                    found.append(decode_info(key, row))
                    if len(found) == limit:
                        break
        return found

    def books(self) -> dict[bytes, SegmentBooks]:
        """The books of every segment."""
        with self._read() as transaction:
            return read_books(transaction, self._databases)

    def count(self) -> int:
        """Fragments."""
        with self._read() as transaction:
            return int(transaction.stat(self._databases.fragments)["entries"])

    def rows(self, keys: Sequence[bytes], *, deleted: bool) -> list[Row | None]:
        """Rows of encoded keys, of fragments or of tombstones; None where there is none."""
        database = self._databases.deleted if deleted else self._databases.fragments
        with self._read() as transaction:
            found = [transaction.get(key, db=database) for key in keys]
        return [decode_row(data) if data is not None else None for data in found]

    def is_clock(self, sequence: int) -> bool:
        """Whether nobody has reserved a sequence since this one; False when the index has to be recovered first."""
        try:
            with self._read() as transaction:
                return read_clock(transaction, self._databases) == sequence
        except StaleIndex:
            return False

    # Writing

    def reserve(self) -> int:
        """A sequence above every one that was reserved before, by any process."""

        def tick(update: Update, clock: int) -> int:
            update.set_clock(clock + 1)
            return clock + 1

        return self.write(tick)

    def write(self, change: Callable[[Update, int], T]) -> T:
        """Run `change(update, clock)` in one transaction; after damage or a swap it is run again on the new index.

        Raises Full when the file system has no room for it, NodeDown when the drive is gone. Not for the event loop.
        """
        for _ in range(RECOVERIES_MAX_COUNT):
            try:
                with self._writes, self._locked(self._gate, exclusive=False):
                    return self._transact(change)
            except StaleIndex as error:
                self.recover(error)
        raise NodeDown(f"the index of {self._directory} cannot be kept: check the disk")

    def _transact(self, change: Callable[[Update, int], T]) -> T:
        while True:
            self._check_current()
            try:
                with self._inside(self._name), self._environment.begin(write=True) as transaction:
                    update = Update(transaction, self._databases)
                    result = change(update, read_clock(transaction, self._databases))
                    update.finish()
                return result
            except lmdb.MapFullError:
                self._resize(2 * self._environment.info()["map_size"])
            except lmdb.MapResizedError:
                self._resize(0)
            except lmdb.DiskError as error:
                raise Full(f"no space left for the index of {self._directory}") from error
            except lmdb.Error as error:
                raise self._stale(f"is damaged: {error}") from error

    def _place(self, environment: str) -> str:
        return f"{self._drive.hex()}/{environment}"

    def _inside(self, environment: str) -> AbstractContextManager[None]:
        return self._attendance.inside(self._place(environment))

    def _resize(self, map_bytes: int) -> None:
        with self._reads:
            self._environment.set_mapsize(map_bytes)

    @contextmanager
    def _read(self) -> Iterator[Any]:
        for _ in range(3):
            with self._reads:
                self._check_current()
                try:
                    transaction = self._environment.begin()
                except lmdb.MapResizedError:
                    transaction = None
                except lmdb.ReadersFullError:
                    self._environment.reader_check()
                    transaction = None
                except lmdb.Error as error:
                    self._damaged = True
                    raise self._stale(f"is damaged: {error}") from error
                if transaction is not None:
                    try:
                        with self._inside(self._name), transaction:
                            yield transaction
                        return
                    except _DAMAGE as error:
                        raise self._stale(f"is damaged: {error}") from error
            with self._writes:
                self._resize(0)
        raise NodeDown(f"the index of {self._directory} cannot be read: too many readers")

    def _check_current(self) -> None:
        try:
            status = self._data.stat()
        except OSError as error:
            raise self._stale("was replaced") from error
        if self._damaged or self._environment is None or status.st_ino != self._inode or status.st_size < self._size:
            raise self._stale("was replaced")
        if self._table is None or not self._table.is_sound():
            raise self._stale("is damaged: its table of locks was written over")
        self._size = status.st_size

    def _stale(self, what: str) -> StaleIndex:
        return StaleIndex(f"the index of {self._directory} {what}", self._name)

    # Trust

    def recover(self, error: StaleIndex) -> None:
        """Open the index that took the place of the one that failed; rebuild it when there is none. Not for the loop.

        Raises NodeDown when the drive itself is gone, Full when there is no room for a new index.
        """
        with self._writes:
            if self._name != error.environment:
                return
            # Readers get StaleIndex from here on, and wait for `_writes` in a thread rather than block the loop.
            with self._reads:
                self._drop_environment()
            for _ in range(RECOVERIES_MAX_COUNT):
                if not holds_drive(self._disk, self._directory, self._drive):
                    raise NodeDown(f"{self._directory} does not hold its drive any more: mount the disk, or replace it")
                try:
                    self._replace_environment(error)
                except (FileNotFoundError, StaleIndex):
                    # Somebody is deleting the index right now.
                    continue
                else:
                    return
        raise NodeDown(f"the index of {self._directory} disappears as soon as it is made: who deletes it?")

    def _replace_environment(self, error: StaleIndex) -> None:
        self._disk.make_directory(self._root)
        with self._deciding():
            self._restore_locks()
            try:
                state = self._read_state()
                if state.environment == error.environment:
                    raise error
                self._open_trusted(state.environment)
            except (Corrupt, StaleIndex):
                self._rebuild()

    def _drop_environment(self) -> None:
        """Let go of the environment; it closes with its last transaction.

        Even closing looks into the mapped files, and whoever looks behind the end of a file that was cut off is
        killed by SIGBUS: so they get their length back, in zeros, first.
        """
        mapped = [(self._data, self._inode, self._size)]
        if self._table is not None:
            mapped.append((self._table.path, self._table.inode, self._table.size))
        for path, inode, size in mapped:
            try:
                status = path.stat()
                if status.st_ino == inode and status.st_size < size:
                    os.truncate(path, size)
            except OSError:
                # Unlinked: the map keeps it whole.
                pass
        self._environment = None
        if self._table is not None:
            self._table.close()
            self._table = None

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

    def _open_or_rebuild(self) -> None:
        try:
            self._users.lock(exclusive=True)
            alone = True
        except BlockingIOError:
            alone = False
        self._lock(self._users, exclusive=False)
        mount = self._disk.mount(self._directory)
        try:
            state = self._read_state()
            # Whoever has it open trusts it, and the file system has been there all the time.
            if not (state.clean or state.mount == mount or not alone):
                raise self._stale("was written before the last power cut")
            if state.clean or state.mount != mount:
                self._write_state(state.environment, clean=False)
            self._open_trusted(state.environment)
        except (Corrupt, StaleIndex):
            self._rebuild()

    def _read_state(self) -> _State:
        try:
            state = msgspec.msgpack.decode(self._disk.read_file(self._root / "state"), type=_State)
        except (FileNotFoundError, msgspec.MsgspecError):
            raise Corrupt(f"{self._root / 'state'} is missing or cannot be read") from None
        if state.format != _STATE_FORMAT or "/" in state.environment:
            raise Corrupt(f"{self._root / 'state'} has another format")
        return state

    def _write_state(self, environment: str, *, clean: bool) -> None:
        state = _State(_STATE_FORMAT, environment, self._disk.mount(self._directory), clean)
        self._disk.replace_file(self._root / "state", msgspec.msgpack.encode(state))

    def _open_trusted(self, name: str) -> None:
        """Open an environment of earlier, unless processes died in it. Raises StaleIndex."""
        if self._attendance.deaths(self._place(name)) >= DEATHS_MAX_COUNT:
            raise self._stale("has killed who read it")
        with self._inside(name):
            self._open_environment(name)

    def _open_environment(self, name: str, *, create: bool = False) -> None:
        """Raises StaleIndex for anything but a sound environment. The old one closes with its last transaction.

        Raises Full when a new one has no room for its table.
        """
        path = self._root / name
        data = path / "data.mdb"
        try:
            if create:
                self._disk.make_directory(path)
                allocate_table(path, READERS_MAX_COUNT)
            elif not data.is_file():
                # LMDB would make an empty one, whatever it is told about creating.
                raise self._stale("is gone")
            environment = lmdb.open(
                str(path),
                map_size=self._map_bytes,
                max_dbs=len(DATABASES),
                max_readers=READERS_MAX_COUNT,
                create=create,
                sync=False,
                metasync=False,
                readahead=False,
            )
            environment.reader_check()
            status = data.stat()
            if (environment.info()["last_pgno"] + 1) * environment.stat()["psize"] > status.st_size:
                raise self._stale("is shorter than its pages")
            if environment.info()["map_size"] < status.st_size:
                environment.set_mapsize(0)
            databases = Databases(*(environment.open_db(database) for database in DATABASES))
            table = ReaderTable(path)
        except (lmdb.Error, OSError) as error:
            if create and isinstance(error, OSError) and error.errno in NO_SPACE:
                raise Full(f"no space left for the index of {self._directory}") from error
            raise self._stale(f"cannot be opened: {error}") from error
        with self._reads:
            self._environment, self._databases, self._data, self._name = environment, databases, data, name
            self._inode, self._size = status.st_ino, data.stat().st_size
            self._table, self._damaged = table, False

    def _rebuild(self) -> None:
        """Make the index again from the segments. The caller decides alone (`_deciding`)."""
        with self._locked(self._gate, exclusive=True):
            name = self._randomness.bytes(8).hex()
            self._open_environment(name, create=True)
            try:
                self._fill()
            except lmdb.DiskError as error:
                raise Full(f"no space left to rebuild the index of {self._directory}") from error
            except lmdb.Error as error:
                raise self._stale(f"cannot be rebuilt: {error}") from error
            self._write_state(name, clean=False)
            for entry in os.scandir(self._root):
                if entry.is_dir() and entry.name != name:
                    shutil.rmtree(entry.path)
                    self._attendance.forget(self._place(entry.name))
            self._size = self._data.stat().st_size
            self.rebuilt += 1

    def _fill(self) -> None:
        highest = 0
        for segment, contents in self.read_segments():
            entries = contents.entries
            for first in range(0, len(entries), _REBUILD_ENTRIES_PER_COMMIT):
                self._fill_with(partial(_apply_all, entries=entries[first : first + _REBUILD_ENTRIES_PER_COMMIT]))
            self._fill_with(partial(Update.set_end, segment=segment, end=contents.end, closed=contents.closed))
            highest = max(highest, max((entry.sequence for entry in entries), default=0))
        self._fill_with(Update.drop_needless_tombstones)
        self._fill_with(partial(Update.set_clock, sequence=highest + CLOCK_GAP_AFTER_REBUILD))

    def _fill_with(self, change: Callable[[Update], None]) -> None:
        while True:
            try:
                with self._environment.begin(write=True) as transaction:
                    update = Update(transaction, self._databases)
                    change(update)
                    update.finish()
                return
            except lmdb.MapFullError:
                self._resize(2 * self._environment.info()["map_size"])

    def read_segments(self) -> Iterator[tuple[bytes, Contents]]:
        """Every segment of this drive with its records, read back from the files."""
        for name in self._disk.list_directory(self._segments):
            segment = segment_of(name)
            if segment is None:
                continue
            try:
                file = self._disk.open(segment_path(self._segments, segment))
            except FileNotFoundError:
                continue
            try:
                if is_ours(file, segment, self._drive):
                    yield segment, read_contents(file, segment, FIRST_GENERATION)
            finally:
                file.close()

    def close(self) -> None:
        """Leave the index; the last process to do so syncs it and marks it clean."""
        with self._writes, self._reads:
            try:
                self._check_current()
                with self._deciding():
                    self._users.lock(exclusive=True)
                    if self._read_state().environment == self._name:
                        self._environment.sync(True)
                        self._write_state(self._name, clean=True)
                        self._attendance.forget(self._place(self._name))
            except (OSError, lmdb.Error, Corrupt, StaleIndex):
                # Somebody else has it open, or the disk is gone: the mark stays as it is, which is always safe.
                pass
            self._drop_environment()
            self._users.close()
            self._gate.close()

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


def _apply_all(update: Update, entries: Sequence[Entry]) -> None:
    for entry in entries:
        update.apply(entry, keep_tombstones=True)
