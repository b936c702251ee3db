"""Disks that misbehave: they fail, fill up, dawdle, rot, and lose what was not synced.

`FaultyDisk` does on request what disks do by themselves. `RecordingDisk` writes down every write and every sync, so
that `Recording.materialise` can lay out the directory as a power cut at any moment might have left it: what was not
synced kept, lost, torn into sectors or out of order. Neither sees what LMDB does with its own files.
"""

import errno
import itertools
import os
import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random  # noqa: TID251  seeded: every crash can be had again

from holdfast.core.disk import Disk, DiskOver, File, FileOver, Space
from holdfast.core.ids import Buffer

# What a disk writes as one, at worst.
SECTOR_BYTES = 512


@dataclass(slots=True)
class Fault:
    """Something to go wrong: calls of `operation` on paths that contain `path`."""

    operation: str
    """The name of a method of File or Disk."""
    path: str = ""
    skip: int = 0
    """Calls that go well first."""
    times: int = 1 << 60
    """Calls that go wrong then."""
    error: int = errno.EIO
    """The errno; 0 only delays."""
    partial: bool = False
    """A write that fails has written its first half."""
    seconds: float = 0.0
    until: threading.Event | None = None
    """The call hangs until this is set."""
    struck: threading.Event = field(default_factory=threading.Event)
    """Set once a call has met it."""

    def strikes(self, operation: str, path: Path) -> bool:
        if operation != self.operation or self.path not in str(path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        return self.times >= 0


class FaultyDisk(DiskOver):
    """A disk with `faults`, to which a test adds, and with room for `quota_bytes` under `root`."""

    def __init__(self, disk: Disk, *, root: Path | None = None, quota_bytes: int | None = None) -> None:
        super().__init__(disk)
        self.faults: list[Fault] = []
        self.root = root
        self.quota_bytes = quota_bytes

    def meet(self, operation: str, path: Path) -> Fault | None:
        """The fault that this call must suffer, after the delay that it suffers in any case."""
        for fault in self.faults:
            if fault.strikes(operation, path):
                fault.struck.set()
                if fault.seconds:
                    threading.Event().wait(fault.seconds)
                if fault.until is not None:
                    fault.until.wait()
                if fault.error:
                    return fault
        return None

    def check(self, operation: str, path: Path) -> None:
        fault = self.meet(operation, path)
        if fault is not None:
            raise OSError(fault.error, os.strerror(fault.error), str(path))

    def check_room(self, growth: int) -> None:
        if self.quota_bytes is not None and growth > max(0, self.quota_bytes - self.used()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def used(self) -> int:
        """Bytes of the files under `root`, but LMDB's."""
        assert self.root is not None, "a quota needs to know of which directory"
        files = (path for path in self.root.rglob("*") if path.is_file() and path.suffix != ".mdb")
        return sum(path.stat().st_size for path in files)

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        self.check("open", path)
        return FaultyFile(self, path, self.disk.open(path, create=create, exclusive=exclusive, direct=direct))

    def read_file(self, path: Path) -> bytes:
        self.check("read_file", path)
        return self.disk.read_file(path)

    def replace_file(self, path: Path, data: Buffer, *, mode: int = 0o600) -> None:
        self.check("replace_file", path)
        self.disk.replace_file(path, data, mode=mode)

    def list_directory(self, path: Path) -> list[str]:
        self.check("list_directory", path)
        return self.disk.list_directory(path)

    def make_directory(self, path: Path) -> None:
        self.check("make_directory", path)
        self.disk.make_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        self.check("rename", source)
        self.disk.rename(source, target)

    def unlink(self, path: Path) -> None:
        self.check("unlink", path)
        self.disk.unlink(path)

    def sync_directory(self, path: Path) -> None:
        self.check("sync_directory", path)
        self.disk.sync_directory(path)

    def space(self, path: Path) -> Space:
        self.check("space", path)
        if self.quota_bytes is None:
            return self.disk.space(path)
        return Space(self.quota_bytes, max(0, self.quota_bytes - self.used()))


class FaultyFile(FileOver):
    """A file of a FaultyDisk."""

    def __init__(self, disk: FaultyDisk, path: Path, file: File) -> None:
        super().__init__(file)
        self._disk = disk
        self._path = path

    def read_into(self, buffer: memoryview, offset: int) -> int:
        self._disk.check("read_into", self._path)
        return self.file.read_into(buffer, offset)

    def read_cached_into(self, buffers: Sequence[memoryview], offset: int) -> int:
        self._disk.check("read_cached_into", self._path)
        return self.file.read_cached_into(buffers, offset)

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        fault = self._disk.meet("write", self._path)
        if fault is not None:
            if fault.partial:
                data = b"".join(map(bytes, buffers))
                with self._path.open("r+b") as raw:
                    raw.seek(offset)
                    raw.write(data[: len(data) // 2])
            raise OSError(fault.error, os.strerror(fault.error), str(self._path))
        self._disk.check_room(offset + sum(map(len, buffers)) - self.file.size())
        self.file.write(buffers, offset)

    def sync(self) -> None:
        self._disk.check("sync", self._path)
        self.file.sync()

    def allocate(self, length: int) -> None:
        self._disk.check("allocate", self._path)
        self._disk.check_room(length - self.file.size())
        self.file.allocate(length)

    def truncate(self, length: int) -> None:
        self._disk.check("truncate", self._path)
        self.file.truncate(length)


def rot(path: Path, offset: int, *, mask: int = 0x40) -> None:
    """Flip bits of one byte of a file, in place."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        assert byte, f"{path} ends before {offset}"
        file.seek(offset)
        file.write(bytes((byte[0] ^ mask,)))


def scribble_over_rows(path: Path, *, longer_than: int) -> None:
    """Let the rows of an LMDB file (version 0.9) claim to lie elsewhere, in a gigabyte of pages, which leads far behind
    the end of the file: whoever reads one is killed. Rows of `longer_than` bytes or less are left alone; at least 8.

    A leaf's header is 16 bytes: at 10 its flags, at 12 the end of the places of its nodes, which follow. A node begins
    with the length of its value, its own flags and the length of its key. What LMDB itself checks only gives errors.
    """
    page_bytes, header_bytes, is_leaf, is_elsewhere = 4096, 16, 2, 1
    raw = bytearray(path.read_bytes())
    for page in range(2 * page_bytes, len(raw), page_bytes):
        flags, end = struct.unpack_from("<HH", raw, page + 10)
        if flags != is_leaf:
            continue
        for at in range(page + header_bytes, page + end, 2):
            node = page + struct.unpack_from("<H", raw, at)[0]
            length, node_flags, key_bytes = struct.unpack_from("<IHH", raw, node)
            if node_flags == 0 and length > longer_than:
                struct.pack_into("<IH", raw, node, 1 << 30, is_elsewhere)
                struct.pack_into("<Q", raw, node + 8 + key_bytes, len(raw) // page_bytes - 3)
    with path.open("r+b") as file:
        file.write(raw)


@dataclass(frozen=True, slots=True)
class _Write:
    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class _Resize:
    file: int
    length: int


@dataclass(frozen=True, slots=True)
class _Sync:
    file: int
    began: int
    """Moment at which it was called: what is recorded after that need not be covered by it."""


@dataclass(frozen=True, slots=True)
class _Link:
    path: Path
    file: int | None
    """None unlinks."""


@dataclass(frozen=True, slots=True)
class _SyncDirectory:
    path: Path
    began: int


@dataclass(frozen=True, slots=True)
class _MakeDirectory:
    path: Path


@dataclass(frozen=True, slots=True)
class _Replace:
    path: Path
    data: bytes


_Event = _Write | _Resize | _Sync | _Link | _SyncDirectory | _MakeDirectory | _Replace

Survival = Callable[[], bool]
"""Asked once for each thing that was not synced: does it survive?"""


@dataclass(slots=True)
class Recording:
    """What happened under `root`, in order."""

    root: Path
    events: list[_Event] = field(default_factory=list)

    def boundaries(self) -> list[int]:
        """Moments right before and right after each sync: cutting elsewhere shows nothing new."""
        syncs = [n for n, event in enumerate(self.events) if isinstance(event, _Sync | _SyncDirectory | _Replace)]
        return sorted({moment for n in syncs for moment in (n, n + 1)} | {len(self.events)})

    def materialise(self, moment: int, target: Path, survival: Survival) -> None:
        """Lay out under `target` what a power cut after the first `moment` events left of `root`."""
        state = _Durable()
        for number, event in enumerate(self.events[:moment]):
            state.take(number, event)
        state.cut(survival)
        state.write(self.root, target)


def lose_all() -> bool:
    """Nothing survives that was not synced."""
    return False


def keep_all() -> bool:
    """A killed process: the page cache, and so everything, survives."""
    return True


def tear(seed: int, share: float = 0.5) -> Survival:
    """Sectors survive by chance, in any order."""
    random = Random(seed)
    return lambda: random.random() < share


class _Durable:
    """What is on stable storage, and what is on the way there."""

    def __init__(self) -> None:
        self.contents: dict[int, bytearray] = {}
        self.names: dict[Path, int] = {}
        self.directories: list[Path] = []
        self._pending: dict[int, list[tuple[int, _Write | _Resize]]] = {}
        self._pending_names: list[tuple[int, _Link]] = []
        self._next = -1

    def take(self, number: int, event: _Event) -> None:
        if isinstance(event, _Write | _Resize):
            self._pending.setdefault(event.file, []).append((number, event))
        elif isinstance(event, _Sync):
            pending = self._pending.pop(event.file, [])
            for at, change in pending:
                if at < event.began:
                    self._apply(change, keep_all)
            self._pending[event.file] = [(at, change) for at, change in pending if at >= event.began]
        elif isinstance(event, _Link):
            self._pending_names.append((number, event))
        elif isinstance(event, _SyncDirectory):
            covered = [at < event.began and link.path.parent == event.path for at, link in self._pending_names]
            for (_, link), is_covered in zip(self._pending_names, covered, strict=True):
                if is_covered:
                    self._name(link)
            self._pending_names = [
                pending for pending, is_covered in zip(self._pending_names, covered, strict=True) if not is_covered
            ]
        elif isinstance(event, _MakeDirectory):
            self.directories.append(event.path)
        else:
            self._next -= 1
            self.contents[self._next] = bytearray(event.data)
            self.names[event.path] = self._next

    def cut(self, survival: Survival) -> None:
        for changes in self._pending.values():
            for _, change in changes:
                self._apply(change, survival)
        for _, link in self._pending_names:
            if survival():
                self._name(link)

    def _name(self, link: _Link) -> None:
        if link.file is None:
            self.names.pop(link.path, None)
        else:
            self.names[link.path] = link.file

    def _apply(self, change: _Write | _Resize, survival: Survival) -> None:
        content = self.contents.setdefault(change.file, bytearray())
        if isinstance(change, _Resize):
            if survival():
                del content[change.length :]
                content.extend(bytes(change.length - len(content)))
            return
        for at in range(0, len(change.data), SECTOR_BYTES):
            sector = change.data[at : at + SECTOR_BYTES]
            if survival():
                start = change.offset + at
                content.extend(bytes(max(0, start + len(sector) - len(content))))
                content[start : start + len(sector)] = sector

    def write(self, root: Path, target: Path) -> None:
        target.mkdir(parents=True)
        for directory in self.directories:
            (target / directory.relative_to(root)).mkdir(parents=True, exist_ok=True)
        for path, file in self.names.items():
            place = target / path.relative_to(root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(self.contents.get(file, b""))


class RecordingDisk(DiskOver):
    """A disk that writes down what is done under `root`, which must be made through it.

    Threads may use it at once. What gives or takes a name happens in the order in which it is recorded: else a file
    that one thread is just making would be unknown to another that opens it, or two would be taken for one.
    """

    def __init__(self, disk: Disk, root: Path) -> None:
        super().__init__(disk)
        self.recording = Recording(root)
        self._files: dict[int, int] = {}
        self._numbers = itertools.count()
        self._lock = threading.RLock()

    def record(self, event: _Event) -> None:
        with self._lock:
            self.recording.events.append(event)

    def moment(self) -> int:
        """How much has happened by now."""
        with self._lock:
            return len(self.recording.events)

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        with self._lock:
            new = not path.exists()
            file = self.disk.open(path, create=create, exclusive=exclusive, direct=direct)
            inode = path.stat().st_ino
            if new:
                # A file system gives the number of an unlinked file to a new one.
                self._files[inode] = next(self._numbers)
                self.record(_Link(path, self._files[inode]))
            return RecordingFile(self, file, self._files[inode])

    def replace_file(self, path: Path, data: Buffer, *, mode: int = 0o600) -> None:
        self.disk.replace_file(path, data, mode=mode)
        self.record(_Replace(path, bytes(data)))

    def make_directory(self, path: Path) -> None:
        self.disk.make_directory(path)
        self.record(_MakeDirectory(path))

    def rename(self, source: Path, target: Path) -> None:
        with self._lock:
            number = self._files[source.stat().st_ino]
            self.disk.rename(source, target)
            self.record(_Link(target, number))
            self.record(_Link(source, None))

    def unlink(self, path: Path) -> None:
        with self._lock:
            self.disk.unlink(path)
            self.record(_Link(path, None))

    def sync_directory(self, path: Path) -> None:
        began = self.moment()
        self.disk.sync_directory(path)
        self.record(_SyncDirectory(path, began))

    def mount(self, path: Path) -> str:
        return "recorded: whoever opens what is left of it finds another mount"


class RecordingFile(FileOver):
    """A file of a RecordingDisk."""

    def __init__(self, disk: RecordingDisk, file: File, number: int) -> None:
        super().__init__(file)
        self._disk = disk
        self._number = number

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        data = b"".join(map(bytes, buffers))
        self.file.write(buffers, offset)
        self._disk.record(_Write(self._number, offset, data))

    def sync(self) -> None:
        began = self._disk.moment()
        self.file.sync()
        self._disk.record(_Sync(self._number, began))

    def allocate(self, length: int) -> None:
        before = self.file.size()
        self.file.allocate(length)
        if length > before:
            self._disk.record(_Resize(self._number, length))

    def truncate(self, length: int) -> None:
        self.file.truncate(length)
        self._disk.record(_Resize(self._number, length))
