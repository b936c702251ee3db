"""An LMDB environment of an index, as this process has it open: transactions in it, and when it must not be read.

Rules.
- Before each access the file is looked at: gone, another, or shorter than it was means `StaleIndex`; reading the map
  of a truncated file would kill the process. So is LMDB's table of locks (`mapped.readers`).
- What LMDB reports as damage is `StaleIndex` as well.
- Growing the map wants no transaction of ours in flight. A reader for whom it is too small may be on the event loop and
  does not wait for our writer to end: it gets `StaleIndex`, and whoever recovers has the environment catch up.
- Never synced but by `sync`.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import lmdb

from holdfast.core.disk import Disk
from holdfast.core.errors import Full, Unavailable
from holdfast.core.limits import GIB
from holdfast.drives.reserve import NO_SPACE
from holdfast.drives.rows import DATABASES, Databases, Update, read_clock
from holdfast.mapped.readers import ReaderTable, allocate_table

# Address space only: the file grows as rows come. Doubled when it is full.
MAP_BYTES = GIB

# Every process and thread that reads holds a slot; those of killed processes are cleared when the index is opened.
READERS_MAX_COUNT = 512

T = TypeVar("T")


class StaleIndex(Unavailable):
    """The index under this handle was replaced, or is damaged: `Index.recover` with this error, then try again."""

    def __init__(self, message: str, environment: str, *, is_sound: bool = False) -> None:
        super().__init__(message)
        self.environment = environment
        """Which environment failed: whoever comes second finds it replaced already."""
        self.is_sound = is_sound
        """Nothing is wrong with it: this process only has to catch up with others."""


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


class Environment:
    """An environment that is open. Any thread may read; only one at a time may do anything else."""

    def __init__(
        self,
        disk: Disk,
        path: Path,
        map_bytes: int,
        inside: Callable[[], AbstractContextManager[None]],
        *,
        create: bool = False,
    ) -> None:
        """`inside` is entered while the map is looked into (`core.attendance`).

        Raises StaleIndex for anything but a sound environment, and Full when a new one has no room for its table.
        """
        self.name = path.name
        self._index = path.parent
        self._data = path / "data.mdb"
        self._inside = inside
        self._reads = threading.Lock()
        self._is_damaged = self._is_dropped = False
        try:
            if create:
                disk.make_directory(path)
                allocate_table(path, READERS_MAX_COUNT)
            elif not self._data.is_file():
                # LMDB would make an empty one, whatever it is told about creating.
                raise self._stale("is gone")
            self._lmdb = lmdb.open(
                str(path),
                map_size=map_bytes,
                max_dbs=len(DATABASES),
                max_readers=READERS_MAX_COUNT,
                create=create,
                sync=False,
                metasync=False,
                readahead=False,
            )
            self._lmdb.reader_check()
            status = self._data.stat()
            if (self._lmdb.info()["last_pgno"] + 1) * self._lmdb.stat()["psize"] > status.st_size:
                raise self._stale("is shorter than its pages")
            if self._lmdb.info()["map_size"] < status.st_size:
                self._lmdb.set_mapsize(0)
            self.databases = Databases(*(self._lmdb.open_db(database) for database in DATABASES))
            self._inode, self._size = status.st_ino, self._data.stat().st_size
            self._table = ReaderTable(path)
        except (lmdb.Error, OSError) as error:
            if create and isinstance(error, OSError) and error.errno in NO_SPACE:
                raise Full(f"no space left for the index of {self._index.parent}") from error
            raise self._stale(f"cannot be opened: {error}") from error

    def check(self) -> None:
        """Raises StaleIndex when this is no longer what lies at its path, or must not be looked into."""
        try:
            status = self._data.stat()
        except OSError as error:
            raise self._stale("was replaced") from error
        if self._is_damaged or self._is_dropped or status.st_ino != self._inode or status.st_size < self._size:
            raise self._stale("was replaced")
        if not self._table.is_sound():
            raise self._stale("is damaged: its table of locks was written over")
        self._size = status.st_size

    @contextmanager
    def reading(self) -> Iterator[Any]:
        """A transaction that reads. Raises StaleIndex."""
        with self._reads:
            self.check()
            try:
                transaction = self._lmdb.begin()
            except (lmdb.MapResizedError, lmdb.ReadersFullError) as error:
                raise self._stale(f"cannot be read yet: {error}", is_sound=True) from error
            except lmdb.Error as error:
                self._is_damaged = True
                raise self._stale(f"is damaged: {error}") from error
            try:
                with self._inside(), transaction:
                    yield transaction
            except _DAMAGE as error:
                raise self._stale(f"is damaged: {error}") from error

    def write(self, change: Callable[[Update, int], T]) -> T:
        """What `change(update, clock)` answers, run in one transaction; again when the map has to grow for it.

        Raises StaleIndex, Full, and what `change` raises.
        """
        while True:
            self.check()
            try:
                with self._inside(), self._lmdb.begin(write=True) as transaction:
                    update = Update(transaction, self.databases)
                    result = change(update, read_clock(transaction, self.databases))
                    update.finish()
                return result
            except lmdb.MapFullError:
                self._resize(2 * self._lmdb.info()["map_size"])
            except lmdb.MapResizedError:
                self._resize(0)
            except lmdb.DiskError as error:
                raise Full(f"no space left for the index of {self._index.parent}") from error
            except lmdb.Error as error:
                raise self._stale(f"is damaged: {error}") from error

    def catch_up(self) -> bool:
        """Map what other processes added, and free the slots of readers that died; whether it may be read again."""
        try:
            self.check()
            self._resize(0)
            self._lmdb.reader_check()
        except (StaleIndex, lmdb.Error):
            return False
        return True

    def sync(self) -> None:
        """Put it on stable storage. Raises StaleIndex."""
        try:
            self._lmdb.sync(True)
        except lmdb.Error as error:
            raise self._stale(f"cannot be synced: {error}") from error

    def drop(self) -> None:
        """Let go of it, once the reader that is in it is done. Who comes later gets StaleIndex.

        Even closing looks into the mapped files, and whoever looks behind the end of a file that was cut off is
        killed by SIGBUS: so they get their length back, in zeros, first.
        """
        with self._reads:
            if self._is_dropped:
                return
            self._is_dropped = True
            mapped = ((self._data, self._inode, self._size), (self._table.path, self._table.inode, self._table.size))
            for path, inode, size in mapped:
                try:
                    status = path.stat()
                    if status.st_ino == inode and status.st_size < size:
                        os.truncate(path, size)
                except OSError:
                    # Unlinked: the map keeps it whole.
                    pass
            self._lmdb.close()
            self._table.close()

    def _resize(self, map_bytes: int) -> None:
        with self._reads:
            self._lmdb.set_mapsize(map_bytes)

    def _stale(self, what: str, *, is_sound: bool = False) -> StaleIndex:
        return StaleIndex(f"the index of {self._index.parent} {what}", self.name, is_sound=is_sound)
