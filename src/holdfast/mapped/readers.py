"""LMDB's table of readers and locks, `lock.mdb`: a file that every process maps into its memory and writes to.

Rules.
- It is allocated before LMDB makes it: who writes into a hole of a mapped file on a full disk dies of SIGBUS.
- Its head, a magic number and a version, is looked at before each access: who waits for a lock that somebody wrote over
  waits for ever, and a read waits for one too when it needs a slot (py-lmdb keeps one slot, others come and go). What
  is written over behind the head is not noticed.
- A descriptor of it is closed after LMDB's environment only. The kernel takes all of a process's locks of a file away
  when it closes any descriptor of it, and LMDB has some there.
"""

import errno
import mmap
import os
from pathlib import Path

from holdfast.core.limits import KIB

TABLE_NAME = "lock.mdb"

_HEAD_BYTES = 8


def allocate_table(environment: Path, readers: int) -> None:
    """In a directory that is there, before LMDB makes an environment in it. Raises OSError."""
    descriptor = os.open(environment / TABLE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # A slot of 64 bytes for each, and a head. A table that is longer than LMDB wants is taken as it is.
        os.posix_fallocate(descriptor, 0, 64 * readers + 4 * KIB)
    finally:
        os.close(descriptor)


class ReaderTable:
    """The table of an environment that is open."""

    def __init__(self, environment: Path) -> None:
        """Raises OSError."""
        self.path = environment / TABLE_NAME
        self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(self._descriptor)
            self.inode, self.size = status.st_ino, status.st_size
            # Mapped, as LMDB has it: a system call for each read would hand on the interpreter's lock.
            self._map = mmap.mmap(self._descriptor, _HEAD_BYTES, prot=mmap.PROT_READ)
        except (OSError, ValueError) as error:
            os.close(self._descriptor)
            raise OSError(errno.EINVAL, "no table of readers", str(self.path)) from error
        self._head = self._map[:]

    def is_sound(self) -> bool:
        """Whether its locks may be waited for. 0.1 us."""
        return self._map[:] == self._head

    def close(self) -> None:
        """The environment was closed."""
        self._map.close()
        os.close(self._descriptor)
