"""The real disk: `core.disk` over the system calls.

Rules. Every write is complete or raises: short writes go on where they stopped. O_DIRECT is a wish: a file system
that answers EINVAL gets ordinary writes. A file closes when the last reference to it is gone, so a handle that a
cache let go of stays good for the thread that is still reading from it.
"""

import ctypes
import errno
import fcntl
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from holdfast.core.disk import File, Space
from holdfast.core.ids import Buffer

# Linux's UIO_MAXIOV: buffers that one pwritev takes.
VECTORS_MAX_COUNT = 1024

# Errors by which a file system says that it knows no non-blocking read.
_NO_NOWAIT = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class OsFile:
    """An open file by its descriptor."""

    __slots__ = ("_descriptor", "_nowait")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._nowait = True

    def read_into(self, buffer: memoryview, offset: int) -> int:
        done = os.preadv(self._descriptor, (buffer,), offset)
        if done == len(buffer) or done == 0:
            return done
        while done < len(buffer):
            count = os.preadv(self._descriptor, (buffer[done:],), offset + done)
            if count == 0:
                break
            done += count
        return done

    def read_cached_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        if self._nowait:
            try:
                done = os.preadv(self._descriptor, buffers, offset, os.RWF_NOWAIT)
            except OSError as error:
                if error.errno not in _NO_NOWAIT:
                    raise
                self._nowait = False
            else:
                # Less than asked: the end of the file or of what is cached, and only a thread may find out which.
                if done == sum(map(len, buffers)):
                    return done
        raise BlockingIOError(errno.EAGAIN, "not in the page cache")

    def expect(self, offset: int, length: int) -> None:
        with suppress(OSError):
            os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_WILLNEED)

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        for first in range(0, len(buffers), VECTORS_MAX_COUNT):
            chunk = buffers[first : first + VECTORS_MAX_COUNT]
            length = sum(map(len, chunk))
            done = os.pwritev(self._descriptor, chunk, offset)
            while done < length:
                done += self._write_rest(chunk, done, offset)
            offset += length

    def _write_rest(self, buffers: Sequence[Buffer], done: int, offset: int) -> int:
        rest: list[memoryview] = []
        skip = done
        for buffer in buffers:
            view = memoryview(buffer)
            if skip < len(view):
                rest.append(view[skip:])
            skip = max(0, skip - len(view))
        count = os.pwritev(self._descriptor, rest, offset + done)
        if count == 0:
            raise OSError(errno.EIO, "a write of no bytes")
        return count

    def sync(self) -> None:
        os.fdatasync(self._descriptor)

    def allocate(self, length: int) -> None:
        before = self.size()
        if length <= before:
            return
        try:
            os.posix_fallocate(self._descriptor, before, length - before)
        except OSError:
            os.ftruncate(self._descriptor, before)
            raise

    def truncate(self, length: int) -> None:
        os.ftruncate(self._descriptor, length)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def lock(self, *, exclusive: bool) -> None:
        fcntl.flock(self._descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)

    def unlock(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def is_at(self, path: Path) -> bool:
        try:
            there = path.stat()
        except OSError:
            return False
        here = os.fstat(self._descriptor)
        return (here.st_ino, here.st_dev) == (there.st_ino, there.st_dev)

    def is_linked(self) -> bool:
        return os.fstat(self._descriptor).st_nlink > 0

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class OsDisk:
    """The file systems of this machine."""

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        flags = os.O_RDWR | os.O_CLOEXEC
        if create or exclusive:
            flags |= os.O_CREAT
        if exclusive:
            flags |= os.O_EXCL
        if direct:
            try:
                return OsFile(os.open(path, flags | os.O_DIRECT, 0o600))
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The refused open may have made the file already.
                flags &= ~os.O_EXCL
        return OsFile(os.open(path, flags, 0o600))

    def read_file(self, path: Path) -> bytes:
        return path.read_bytes()

    def replace_file(self, path: Path, data: Buffer, *, mode: int = 0o600) -> None:
        # The name carries the process, so that two who replace the same file at once do not share a half-written one.
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        except OSError:
            # On a full disk it must not take the last page.
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        temporary.rename(path)
        self.sync_directory(path.parent)

    def list_directory(self, path: Path) -> list[str]:
        return sorted(entry.name for entry in path.iterdir())

    def make_directory(self, path: Path) -> None:
        if path.is_dir():
            return
        self.make_directory(path.parent)
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            return
        self.sync_directory(path.parent)

    def rename(self, source: Path, target: Path) -> None:
        source.rename(target)

    def unlink(self, path: Path) -> None:
        path.unlink()

    def sync_directory(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def exists(self, path: Path) -> bool:
        return path.exists()

    def space(self, path: Path) -> Space:
        status = os.statvfs(path)
        return Space(status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize)

    def mount(self, path: Path) -> str:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{path.stat().st_dev:x}/{_mount_id(path)}"

    def kind(self, path: Path) -> str:
        line = _mount_line(path)
        fields = line.split(" - ", 1)[1].split() if " - " in line else []
        return fields[0] if fields else ""


_AT_FDCWD = -100
_STATX_MNT_ID = 0x1000
_STATX_MNT_ID_UNIQUE = 0x4000
# struct statx is 256 bytes; stx_mask is its first field and stx_mnt_id stands here.
_STATX_BYTES = 256
_STATX_MNT_ID_OFFSET = 0x90


def _mount_id(path: Path) -> str:
    """The mount's id, unique since boot where the kernel has such (Linux 6.8), else one that may be used again."""
    library = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(_STATX_BYTES)
    for mask, letter in ((_STATX_MNT_ID_UNIQUE, "u"), (_STATX_MNT_ID, "m")):
        if not hasattr(library, "statx") or library.statx(_AT_FDCWD, os.fsencode(path), 0, mask, buffer) != 0:
            break
        if int.from_bytes(buffer.raw[:4], "little") & mask:
            number = buffer.raw[_STATX_MNT_ID_OFFSET : _STATX_MNT_ID_OFFSET + 8]
            return f"{letter}{int.from_bytes(number, 'little'):x}"
    return "i" + _mount_line(path).split(" ", 1)[0]


def _mount_line(path: Path) -> str:
    """The line of /proc/self/mountinfo for the mount that `path` lies on; "" when it cannot be told."""
    real = os.path.realpath(path)
    best, best_length = "", -1
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return ""
    for line in lines:
        point = line.split(" ")[4].encode().decode("unicode_escape")
        prefix = point.rstrip("/") + "/"
        # Of two mounts on one point the later one hides the other.
        if (real + "/").startswith(prefix) and len(prefix) >= best_length:
            best, best_length = line, len(prefix)
    return best
