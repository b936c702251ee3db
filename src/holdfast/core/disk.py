"""The disk, as it comes in through constructors: files and directories of one file system.

`holdfast.drives.os_disk` is the real one; `holdfast.testing` has those that tear, lose, rot, fill up and dawdle. The
calls block: whoever has an event loop calls them from a thread. Errors are `OSError` with the kernel's errno: the
rooms map them at their border. LMDB opens its files by path itself and is not seen through this; what it keeps can
always be made again from files that are.

`FileOver` and `DiskOver` hand every call on to another: what wraps a disk overrides what it changes, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from holdfast.core.ids import Buffer


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of a file system: `total`, and `free` to an ordinary user."""

    total: int
    free: int


class File(Protocol):
    """An open file. Safe to use from several threads; reads and writes carry their offset."""

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill `buffer` from `offset`; the number of bytes read is less only at the end of the file."""
        ...

    def read_cached_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        """As `read_into`, into one buffer after the other, but only what needs no wait for the disk.

        Raises BlockingIOError when it does need one.
        """
        ...

    def expect(self, offset: int, length: int) -> None:
        """These bytes will be read soon: have the disk fetch them. A wish; may wait for a disk that is busy."""
        ...

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        """Write all of `buffers`, one after the other, at `offset`. Not durable before `sync` returns."""
        ...

    def sync(self) -> None:
        """Put every write so far, and the file's length, on stable storage (fdatasync).

        After an error nothing is known of earlier writes and a second call may lie: the caller abandons the file.
        """
        ...

    def allocate(self, length: int) -> None:
        """Reserve blocks for the first `length` bytes and make the file that long; OSError(ENOSPC) changes nothing."""
        ...

    def truncate(self, length: int) -> None: ...

    def size(self) -> int: ...

    def lock(self, *, exclusive: bool) -> None:
        """flock without waiting: BlockingIOError when somebody else holds it. The holder's death frees it.

        Held already, it is converted, which is not atomic: another may get hold of it in between.
        """
        ...

    def unlock(self) -> None: ...

    def is_at(self, path: Path) -> bool:
        """Whether `path` still leads to this file: it was not unlinked, replaced, or its file system pulled."""
        ...

    def is_linked(self) -> bool:
        """Whether any name leads to this file: one that was unlinked takes writes like any other, and they are lost.

        Unlike `is_at`, a directory above it may have been moved.
        """
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """A file system."""

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        """Open for reading and writing. `direct` asks for O_DIRECT and falls back where the file system refuses."""
        ...

    def read_file(self, path: Path) -> bytes:
        """The whole of a small file."""
        ...

    def replace_file(self, path: Path, data: Buffer, *, mode: int = 0o600) -> None:
        """Write a small file so that, whatever happens, either the old or the new content is there; durable."""
        ...

    def list_directory(self, path: Path) -> list[str]:
        """Names, sorted."""
        ...

    def make_directory(self, path: Path) -> None:
        """With parents, durable; no error when it is there."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Atomic; durable after `sync_directory` of both parents."""
        ...

    def unlink(self, path: Path) -> None: ...

    def sync_directory(self, path: Path) -> None: ...

    def exists(self, path: Path) -> bool: ...

    def space(self, path: Path) -> Space: ...

    def mount(self, path: Path) -> str:
        """An opaque string that changes when the file system under `path` was unmounted, pulled or booted anew.

        Whatever was written but not synced is known to be there still only while this stays the same.
        """
        ...

    def kind(self, path: Path) -> str:
        """The file system's type as the kernel names it ("ext4", "tmpfs", "nfs"), "" when unknown."""
        ...


class FileOver:
    """A `File` that hands everything on to `file`."""

    def __init__(self, file: File) -> None:
        self.file = file

    def read_into(self, buffer: memoryview, offset: int) -> int:
        return self.file.read_into(buffer, offset)

    def read_cached_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        return self.file.read_cached_into(buffers, offset)

    def expect(self, offset: int, length: int) -> None:
        self.file.expect(offset, length)

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        self.file.write(buffers, offset)

    def sync(self) -> None:
        self.file.sync()

    def allocate(self, length: int) -> None:
        self.file.allocate(length)

    def truncate(self, length: int) -> None:
        self.file.truncate(length)

    def size(self) -> int:
        return self.file.size()

    def lock(self, *, exclusive: bool) -> None:
        self.file.lock(exclusive=exclusive)

    def unlock(self) -> None:
        self.file.unlock()

    def is_at(self, path: Path) -> bool:
        return self.file.is_at(path)

    def is_linked(self) -> bool:
        return self.file.is_linked()

    def close(self) -> None:
        self.file.close()


class DiskOver:
    """A `Disk` that hands everything on to `disk`."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        return self.disk.open(path, create=create, exclusive=exclusive, direct=direct)

    def read_file(self, path: Path) -> bytes:
        return self.disk.read_file(path)

    def replace_file(self, path: Path, data: Buffer, *, mode: int = 0o600) -> None:
        self.disk.replace_file(path, data, mode=mode)

    def list_directory(self, path: Path) -> list[str]:
        return self.disk.list_directory(path)

    def make_directory(self, path: Path) -> None:
        self.disk.make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self.disk.rename(source, target)

    def unlink(self, path: Path) -> None:
        self.disk.unlink(path)

    def sync_directory(self, path: Path) -> None:
        self.disk.sync_directory(path)

    def exists(self, path: Path) -> bool:
        return self.disk.exists(path)

    def space(self, path: Path) -> Space:
        return self.disk.space(path)

    def mount(self, path: Path) -> str:
        return self.disk.mount(path)

    def kind(self, path: Path) -> str:
        return self.disk.kind(path)
