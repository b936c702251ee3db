"""Space put aside, so that a full drive can still delete: a preallocated file that gives way when nothing else is left.

Rules. Puts never use it. A deletion that meets ENOSPC, in a segment or in the index, halves it and tries again.
It is filled up again once there is space. Any number of processes may do either at once.
Beside it puts leave a headroom free. Compaction may use that: it holds what lives in any one segment, so that however
evenly the dead lie among the living, a full drive can always rewrite one segment and unlink it.
"""

import errno
from pathlib import Path

from holdfast.core.disk import Disk
from holdfast.core.limits import KIB, MIB

RESERVE_NAME = "reserve"

# Tombstones of a hundred thousand fragments, and the pages that LMDB copies for them.
RESERVE_MAX_BYTES = 64 * MIB

# On a small drive the reserve stays a small part.
RESERVE_SHARE = 64

# Not worth halving any more.
_RESERVE_MIN_BYTES = 256 * KIB

# What puts leave free besides a segment, for the index and the other rooms' small files.
HEADROOM_BYTES = 16 * MIB

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class Reserve:
    """The reserve of one drive."""

    def __init__(self, disk: Disk, directory: Path, max_bytes: int, segment_bytes: int) -> None:
        self._disk = disk
        self._directory = directory
        self._path = directory / RESERVE_NAME
        total = disk.space(directory).total
        self._target = min(max_bytes, total // RESERVE_SHARE)
        self.headroom = min(HEADROOM_BYTES, self._target) + segment_bytes

    def size(self) -> int:
        file = self._disk.open(self._path, create=True)
        try:
            return file.size()
        finally:
            file.close()

    def release(self) -> bool:
        """Give back half of it; False when there is nothing left to give."""
        try:
            file = self._disk.open(self._path)
        except FileNotFoundError:
            return False
        try:
            size = file.size()
            file.truncate(size // 2 if size > _RESERVE_MIN_BYTES else 0)
            return size > 0
        finally:
            file.close()

    def refill(self) -> bool:
        """Fill it up if there is space for it; whether it is whole now."""
        file = self._disk.open(self._path, create=True)
        try:
            missing = self._target - file.size()
            if missing <= 0:
                return True
            if self._disk.space(self._directory).free < missing + self.headroom:
                return False
            file.allocate(self._target)
            file.sync()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            return False
        else:
            return True
        finally:
            file.close()
