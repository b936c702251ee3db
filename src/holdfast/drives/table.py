"""LMDB's table of readers and locks, `lock.mdb`: a file that every process maps into its memory and writes to.

Rules.
- It is allocated before LMDB makes it: who writes into a hole of a mapped file on a full disk dies of SIGBUS.
- Its head, a magic number and a version, is looked at before each write: who waits for a lock that somebody wrote over
  waits for ever. Reads take no lock but for their slot, once. What is written over behind the head is not noticed.
- A descriptor of it is closed after LMDB's environment only. The kernel takes all of a process's locks of a file away
  when it closes any descriptor of it, and LMDB has some there.
"""

import os
from pathlib import Path
from typing import Any

from holdfast.core.disk import Disk
from holdfast.core.limits import KIB

TABLE_NAME = "lock.mdb"

# Reads of one index come one at a time; LMDB counts a transaction until Python has let go of it.
SPARE_READERS_COUNT = 2

_HEAD_BYTES = 8


def allocate_table(disk: Disk, environment: Path, readers: int) -> None:
    """Before LMDB opens an environment that is not there yet. Raises OSError."""
    disk.make_directory(environment)
    file = disk.open(environment / TABLE_NAME, create=True)
    try:
        # A slot of 64 bytes for each, and a head. A table that is longer than LMDB wants is taken as it is.
        file.allocate(64 * readers + 4 * KIB)
    finally:
        file.close()


def take_slots(environment: Any) -> None:
    """A reader's slot is taken under a lock of the table, and then kept: so that no read asks for one later."""
    for transaction in [environment.begin() for _ in range(SPARE_READERS_COUNT)]:
        transaction.abort()


class ReaderTable:
    """The table of an environment that is open."""

    def __init__(self, environment: Path) -> None:
        """Raises OSError."""
        self.path = environment / TABLE_NAME
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        self.inode, self.size = status.st_ino, status.st_size
        self._head = os.pread(self._descriptor, _HEAD_BYTES, 0)

    def is_sound(self) -> bool:
        """Whether its locks may be waited for. 1 us."""
        try:
            return os.pread(self._descriptor, _HEAD_BYTES, 0) == self._head
        except OSError:
            return False

    def close(self) -> None:
        """The environment was closed."""
        os.close(self._descriptor)
