"""The index of a drive: finds fragments, and can always be made again from segments.

It is an LMDB environment. `environment` has one open, `trust` decides which one is believed, `rebuild` makes one anew,
`rows` is what is in it. Here are the questions that the drive puts to it.

Rules.
- A question that meets an environment that is gone or damaged raises `StaleIndex`: after `recover` it may be put
  again. Writes do so by themselves.
- LMDB forbids one process to open an environment twice, so handles of one drive in one process share an index.
"""

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from holdfast.core.attendance import Attendance
from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import NodeDown, NotFound
from holdfast.core.ids import DriveId
from holdfast.drives.environment import StaleIndex
from holdfast.drives.interface import FragmentInfo, FragmentKey
from holdfast.drives.rows import Row, SegmentBooks, Update, decode_info, decode_row, encode_key, read_books, read_clock
from holdfast.drives.trust import RECOVERIES_MAX_COUNT, TrustedEnvironment

T = TypeVar("T")


class _Share:
    """What a process's handles of one drive on one path have in common."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.index: Index | None = None
        self.count = 0


# By path and drive: two disks may be swapped while the handle of the one that was there is not closed yet. Never
# shrinks: a process sees few. A lock for each, so that several drives can rebuild at once.
_shares: dict[tuple[str, DriveId], _Share] = {}


def acquire_index(
    directory: Path, disk: Disk, drive: DriveId, randomness: Randomness, map_bytes: int, attendance: Attendance
) -> "Index":
    """This process's handle on the index of the drive at `directory`; opened, or rebuilt, if it is the first."""
    share = _shares.setdefault((os.path.realpath(directory), drive), _Share())
    with share.lock:
        if share.index is None:
            share.index = Index(TrustedEnvironment(directory, disk, drive, randomness, map_bytes, attendance))
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

    def __init__(self, trusted: TrustedEnvironment) -> None:
        self._trusted = trusted

    def lookup(self, key: FragmentKey) -> Row:
        """Raises NotFound, StaleIndex."""
        environment = self._trusted.current
        with environment.reading() as transaction:
            data = transaction.get(encode_key(key), db=environment.databases.fragments)
        if data is None:
            raise NotFound(f"no fragment {key.index} of block {key.block.hex()}")
        return decode_row(data)

    def contains(self, keys: Sequence[FragmentKey]) -> list[bool]:
        environment = self._trusted.current
        with environment.reading() as transaction:
            fragments = environment.databases.fragments
            return [transaction.get(encode_key(key), db=fragments) is not None for key in keys]

    def page(self, after: FragmentKey | None, limit: int) -> list[FragmentInfo]:
        found: list[FragmentInfo] = []
        # The smallest key behind `after` is that with a zero appended.
        start = b"" if after is None else encode_key(after) + b"\0"
        environment = self._trusted.current
        with environment.reading() as transaction, transaction.cursor(db=environment.databases.fragments) as cursor:
            if limit > 0 and cursor.set_range(start):
                for key, row in cursor:
                    found.append(decode_info(key, row))
                    if len(found) == limit:
                        break
        return found

    def books(self) -> dict[bytes, SegmentBooks]:
        """The books of every segment."""
        environment = self._trusted.current
        with environment.reading() as transaction:
            return read_books(transaction, environment.databases)

    def count(self) -> int:
        """Fragments."""
        environment = self._trusted.current
        with environment.reading() as transaction:
            return int(transaction.stat(environment.databases.fragments)["entries"])

    def rows(self, keys: Sequence[bytes], *, deleted: bool) -> list[Row | None]:
        """Rows of encoded keys, of fragments or of tombstones; None where there is none."""
        environment = self._trusted.current
        database = environment.databases.deleted if deleted else environment.databases.fragments
        with environment.reading() as transaction:
            found = [transaction.get(key, db=database) for key in keys]
        return [decode_row(data) if data is not None else None for data in found]

    def is_clock(self, sequence: int) -> bool:
        """Whether nobody has reserved a sequence since this one; False when the index has to be recovered first."""
        environment = self._trusted.current
        try:
            with environment.reading() as transaction:
                return read_clock(transaction, environment.databases) == sequence
        except StaleIndex:
            return False

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
                with self._trusted.writing() as environment:
                    return environment.write(change)
            except StaleIndex as error:
                self.recover(error)
        raise NodeDown(f"the index of {self._trusted.directory} cannot be kept: check the disk")

    def recover(self, error: StaleIndex) -> None:
        """As `TrustedEnvironment.recover`. Not for the event loop."""
        self._trusted.recover(error)

    def close(self) -> None:
        """As `TrustedEnvironment.close`."""
        self._trusted.close()
