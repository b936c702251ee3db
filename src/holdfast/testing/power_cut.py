"""Power cuts: what a recorded run would have left on its disks, had the power gone at any moment.

A run of a real process is recorded call by call, LMDB's included (tests/simulation/recorder). From the trace the
directories are made anew as a cut at any of its positions could have left them, and the store is started on that.

What a disk may do here, which is what ext4, XFS and their like may do, and a little more:

- Bytes written are on the disk for certain once a sync of their file, begun after the write, has ended; or when they
  were written through O_DSYNC. Until then each page of each write may be there or not, in any order, and one of them
  may be torn at a sector.
- A file's length and its holes go with the writes that made them.
- A name (created, renamed, removed) is on the disk once its directory was synced after the change. Before that it may
  be there or not: `Names.STRICT` loses every such change; `Names.ORDERED` keeps an arbitrary first part of them in
  the order in which they were made, as journals do, and no less than those made before the last sync of any file of
  the same drive.
- A rename is one change: either the old or the new name is there, and the file that it replaced with the old.
- Bytes that were durable never change. (Rot is another test's business.)

What is not modelled: files written through shared mappings (LMDB's lock file is one; its content means nothing to who
finds it after a cut), directories that are renamed across directories, drives that lie about a sync.
"""

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from random import Random  # noqa: TID251 - seeded: a failing cut can be made again

PAGE_BYTES = 4096
SECTOR_BYTES = 512

_HEADER = struct.Struct("<IIIIBBHHHQQ")
_MAGIC = 0x63726668

DURABLE = 1
DIRECTORY = 2
KEEP_SIZE = 4

# Written through shared mappings, and of no meaning after a restart.
UNRECORDED_FILES = frozenset({"lock.mdb"})


class Kind(IntEnum):
    """What a record says; the numbers are the recorder's."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    ALLOCATE = 4
    SYNC_BEGIN = 5
    SYNC_END = 6
    RENAME = 7
    UNLINK = 8
    MKDIR = 9
    RMDIR = 10
    LINK = 11
    UNFOLLOWED = 12
    MARK = 13


class Unfollowed(Exception):
    """The recorded process did something that the recorder cannot follow, so the trace proves nothing."""


@dataclass(frozen=True, slots=True)
class Record:
    kind: Kind
    flags: int
    thread: tuple[int, int]
    path: str
    second: str
    inode: int
    offset: int
    data: memoryview


def read_trace(path: Path) -> list[Record]:
    """The records of a trace, in order. A record that the end of the run tore is left out."""
    with path.open("rb") as file:
        if not path.stat().st_size:
            return []
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    records = []
    position = 0
    while position + _HEADER.size <= len(view):
        magic, total, pid, tid, kind, flags, first, second, _, inode, offset = _HEADER.unpack_from(view, position)
        if magic != _MAGIC:
            raise ValueError(f"{path}: no record at {position}")
        if position + total > len(view):
            break
        names = position + _HEADER.size
        data = names + first + second
        path_text = os.fsdecode(bytes(view[names : names + first]))
        second_text = os.fsdecode(bytes(view[names + first : data]))
        content = view[data : position + total]
        records.append(Record(Kind(kind), flags, (pid, tid), path_text, second_text, inode, offset, content))
        position += total
    return records


class Marker:
    """Writes marks into a trace: what a client knew, and when, in the order of the trace."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def mark(self, text: bytes) -> None:
        """When this returns, every later record stands behind the mark. From any thread."""
        header = _HEADER.pack(_MAGIC, _HEADER.size + len(text), os.getpid(), 0, Kind.MARK, 0, 0, 0, 0, 0, 0)
        if os.write(self._file, header + text) != len(header) + len(text):
            raise OSError(f"short mark in {text!r}")

    def close(self) -> None:
        os.close(self._file)


class Names(StrEnum):
    """What becomes of names whose directory was not synced since they changed."""

    STRICT = "strict"
    ORDERED = "ordered"


class Unsynced(StrEnum):
    """What becomes of bytes that were not synced."""

    LOST = "lost"
    KEPT = "kept"
    TORN = "torn"


@dataclass(frozen=True, slots=True)
class Cut:
    """One way for the power to go: before the record at `position`, and what the disks made of the rest."""

    position: int
    names: Names
    unsynced: Unsynced
    seed: int = 0


def cut_positions(records: Sequence[Record]) -> list[int]:
    """Every sync boundary: the moment before each sync ended (most is in the air), and the end of the trace."""
    positions = [
        index
        for index, record in enumerate(records)
        if record.kind is Kind.SYNC_END or (record.kind is Kind.WRITE and record.flags & DURABLE)
    ]
    return [*positions, len(records)]


def marks(records: Sequence[Record], position: int) -> list[bytes]:
    """What the clients had marked before the power went."""
    return [bytes(record.data) for record in records[:position] if record.kind is Kind.MARK]


@dataclass(slots=True)
class _File:
    """A file's durable bytes, and what happened to it since."""

    size: int = 0
    pages: dict[int, bytes] = field(default_factory=dict)
    """Pages that are not all zeroes."""
    pending: list[tuple[int, Record]] = field(default_factory=list)

    def settle(self, position: int) -> None:
        """Everything that happened before `position` is durable now."""
        waiting = []
        for index, record in self.pending:
            if index < position:
                self.apply(record)
            else:
                waiting.append((index, record))
        self.pending = waiting

    def settle_pages(self, offset: int, length: int) -> None:
        """A write through O_DSYNC has ended: its pages are durable, and with them what else was written to them."""
        first, last = offset // PAGE_BYTES, (offset + length - 1) // PAGE_BYTES
        if any(record.kind is not Kind.WRITE for _, record in self.pending):
            # Lengths are in the air as well: take it all as durable, which accuses nobody wrongly.
            first, last = 0, 1 << 64
        waiting = []
        for index, record in self.pending:
            end = (record.offset + len(record.data) - 1) // PAGE_BYTES
            if first <= record.offset // PAGE_BYTES and end <= last:
                self.apply(record)
            else:
                waiting.append((index, record))
        self.pending = waiting

    def apply(self, record: Record) -> None:
        match record.kind:
            case Kind.WRITE:
                self.write(record.offset, record.data)
            case Kind.TRUNCATE:
                self.truncate(record.offset)
            case Kind.ALLOCATE:
                if not record.flags & KEEP_SIZE:
                    self.size = max(self.size, record.offset)
            case _:
                raise AssertionError(record.kind)

    def write(self, offset: int, data: memoryview | bytes) -> None:
        for page, start, piece in _by_page(offset, memoryview(data)):
            if len(piece) == PAGE_BYTES:
                self.pages[page] = bytes(piece)
            else:
                content = bytearray(self.pages.get(page, bytes(PAGE_BYTES)))
                content[start : start + len(piece)] = piece
                self.pages[page] = bytes(content)
        self.size = max(self.size, offset + len(data))

    def truncate(self, length: int) -> None:
        if length < self.size:
            last, kept = divmod(length, PAGE_BYTES)
            for page in [page for page in self.pages if page > last or (page == last and not kept)]:
                del self.pages[page]
            if last in self.pages:
                self.pages[last] = self.pages[last][:kept] + bytes(PAGE_BYTES - kept)
        self.size = length

    def after(self, unsynced: Unsynced, random: Random) -> "_File":
        """The file as a cut leaves it."""
        left = _File(self.size, dict(self.pages))
        for _, record in self.pending:
            if unsynced is Unsynced.LOST:
                break
            if unsynced is Unsynced.KEPT:
                left.apply(record)
            elif record.kind is not Kind.WRITE:
                if random.random() < 0.5:
                    left.apply(record)
            else:
                left.write_torn(record, random)
        return left

    def write_torn(self, record: Record, random: Random) -> None:
        """Some pages of a write, and of one in eight pages only some sectors."""
        share = random.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        for page, start, piece in _by_page(record.offset, record.data):
            if random.random() >= share:
                continue
            if random.random() >= 0.125:
                self.write(page * PAGE_BYTES + start, piece)
                continue
            for sector in range(0, PAGE_BYTES, SECTOR_BYTES):
                low, high = max(start, sector), min(start + len(piece), sector + SECTOR_BYTES)
                if low < high and random.random() < 0.5:
                    self.write(page * PAGE_BYTES + low, piece[low - start : high - start])

    def write_to(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.ftruncate(descriptor, self.size)
            for page, content in self.pages.items():
                length = min(PAGE_BYTES, self.size - page * PAGE_BYTES)
                if length > 0:
                    os.pwrite(descriptor, content[:length], page * PAGE_BYTES)
        finally:
            os.close(descriptor)


def _by_page(offset: int, data: memoryview) -> Iterator[tuple[int, int, memoryview]]:
    """(page, where in it, bytes) of a write."""
    done = 0
    while done < len(data):
        page, start = divmod(offset + done, PAGE_BYTES)
        length = min(PAGE_BYTES - start, len(data) - done)
        yield page, start, data[done : done + length]
        done += length


Node = int
"""A file or a directory, as a number of the replay's own."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of names: entries of directories set (to a node) or removed (None), all at once."""

    index: int
    entries: tuple[tuple[Node, str, Node | None], ...]


@dataclass(slots=True)
class _Root:
    """One recorded directory, taken to be a file system of its own."""

    path: str
    node: Node
    changes: list[_Change] = field(default_factory=list)
    """Of names, not yet made durable by a sync of their directory."""
    synced: int = 0
    """Before this position began the last sync, of whatever file, that has ended."""

    def holds(self, path: str) -> bool:
        return path == self.path or path.startswith(self.path + "/")

    def surviving(self, cut: "Cut", random: Random) -> Sequence[_Change]:
        """The changes that a cut leaves."""
        if cut.names is Names.STRICT:
            return ()
        if cut.unsynced is Unsynced.KEPT:
            return self.changes
        settled = sum(change.index < self.synced for change in self.changes)
        if cut.unsynced is Unsynced.LOST:
            return self.changes[:settled]
        return self.changes[: random.randint(settled, len(self.changes))]


class World:
    """The disks while a trace is walked through: what is durable, and what is in the air.

    They start out as the recorded directories are when the world is made, all of it durable: make it before the run,
    or `empty` if they were empty then.
    """

    def __init__(self, roots: Sequence[Path], *, empty: bool = False) -> None:
        self.position = 0
        self._nodes = 0
        self._files: dict[Node, _File] = {}
        self._of_inode: dict[int, Node] = {}
        self._now: dict[Node, dict[str, Node]] = {}
        """Directories as the running process sees them."""
        self._durable: dict[Node, dict[str, Node]] = {}
        self._syncing: dict[tuple[tuple[int, int], int], int] = {}
        self._roots = [_Root(str(path), self._new_directory() if empty else self._take(path)) for path in roots]

    def _take(self, directory: Path) -> Node:
        node = self._new_directory()
        for path in sorted(directory.iterdir()):
            if path.is_dir():
                child = self._take(path)
            else:
                child = self._new_file(path.stat().st_ino)
                _read_sparse(path, self._files[child])
            self._now[node][path.name] = self._durable[node][path.name] = child
        return node

    def _new_node(self) -> Node:
        self._nodes += 1
        return self._nodes

    def _new_directory(self) -> Node:
        node = self._new_node()
        self._now[node] = {}
        self._durable[node] = {}
        return node

    def _new_file(self, inode: int) -> Node:
        """Inode numbers are used again once a file is gone: from now on this one means the new file."""
        node = self._new_node()
        self._files[node] = _File()
        self._of_inode[inode] = node
        return node

    def _root(self, path: str) -> _Root:
        return next(root for root in self._roots if root.holds(path))

    def _parent(self, path: str) -> tuple[Node, str]:
        """The directory of a path, now, and the name in it; the name is empty for a root."""
        root = self._root(path)
        if path == root.path:
            return root.node, ""
        *folders, name = path[len(root.path) + 1 :].split("/")
        node = root.node
        for folder in folders:
            node = self._now[node][folder]
        return node, name

    def advance(self, records: Sequence[Record], position: int) -> None:
        """Walk on to just before the record at `position`. Raises Unfollowed."""
        assert position >= self.position, "time goes forward"
        for index in range(self.position, position):
            self._step(index, records[index])
        self.position = position

    def _step(self, index: int, record: Record) -> None:
        match record.kind:
            case Kind.WRITE | Kind.TRUNCATE | Kind.ALLOCATE:
                self._change_file(index, record)
            case Kind.SYNC_BEGIN:
                self._syncing[record.thread, record.inode] = index
            case Kind.SYNC_END:
                self._end_sync(record, self._syncing.pop((record.thread, record.inode)))
            case Kind.UNFOLLOWED:
                if Path(record.path).name not in UNRECORDED_FILES:
                    raise Unfollowed(f"{record.second} of {record.path}")
            case Kind.MARK:
                pass
            case _:
                self._change_names(index, record)

    def _change_file(self, index: int, record: Record) -> None:
        node = self._of_inode.get(record.inode)
        if node is None:
            raise Unfollowed(f"a write to {record.path}, which nobody was seen to make")
        file = self._files[node]
        file.pending.append((index, record))
        if record.flags & DURABLE and record.kind is Kind.WRITE:
            file.settle_pages(record.offset, len(record.data))
            self._root(record.path).synced = index

    def _end_sync(self, record: Record, begun: int) -> None:
        root = self._root(record.path)
        root.synced = max(root.synced, begun)
        if not record.flags & DIRECTORY:
            self._files[self._of_inode[record.inode]].settle(begun)
            return
        parent, name = self._parent(record.path)
        directory = self._now[parent][name] if name else parent
        waiting = []
        for change in root.changes:
            if change.index < begun and any(entry[0] == directory for entry in change.entries):
                _apply(self._durable, change)
            else:
                waiting.append(change)
        root.changes = waiting

    def _change_names(self, index: int, record: Record) -> None:
        parent, name = self._parent(record.path)
        entries: list[tuple[Node, str, Node | None]]
        match record.kind:
            case Kind.CREATE:
                entries = [(parent, name, self._new_file(record.inode))]
            case Kind.MKDIR:
                entries = [(parent, name, self._new_directory())]
            case Kind.UNLINK | Kind.RMDIR:
                entries = [(parent, name, None)]
            case Kind.LINK:
                entries = [(*self._parent(record.second), self._now[parent][name])]
            case Kind.RENAME:
                entries = [(parent, name, None), (*self._parent(record.second), self._now[parent][name])]
            case _:
                raise AssertionError(record.kind)
        change = _Change(index, tuple(entries))
        _apply(self._now, change)
        self._root(record.path).changes.append(change)

    def materialise(self, cut: Cut, targets: Sequence[Path]) -> None:
        """Make the directories as `cut` leaves them, one for each root, in the roots' order; none may exist yet.

        The world must have been advanced to the cut's position.
        """
        assert cut.position == self.position, "advance first"
        random = Random(cut.seed)
        for root, target in zip(self._roots, targets, strict=True):
            names = {node: dict(entries) for node, entries in self._durable.items()}
            for change in root.surviving(cut, random):
                _apply(names, change)
            self._write(names, root.node, target, cut.unsynced, random)

    def _write(
        self, names: dict[Node, dict[str, Node]], node: Node, target: Path, unsynced: Unsynced, random: Random
    ) -> None:
        target.mkdir()
        for name, child in sorted(names[node].items()):
            if child in self._files:
                self._files[child].after(unsynced, random).write_to(target / name)
            else:
                self._write(names, child, target / name, unsynced, random)


def _apply(names: dict[Node, dict[str, Node]], change: _Change) -> None:
    for directory, name, node in change.entries:
        if node is None:
            names[directory].pop(name, None)
        else:
            names[directory][name] = node


def _read_sparse(path: Path, file: _File) -> None:
    """What is in a file, without reading its holes."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        position = 0
        while position < size:
            try:
                start = os.lseek(descriptor, position, os.SEEK_DATA)
            except OSError:
                break
            position = os.lseek(descriptor, start, os.SEEK_HOLE)
            for offset in range(start - start % PAGE_BYTES, position, PAGE_BYTES):
                page = os.pread(descriptor, PAGE_BYTES, offset)
                if any(page):
                    file.pages[offset // PAGE_BYTES] = page.ljust(PAGE_BYTES, b"\0")
        file.size = size
    finally:
        os.close(descriptor)
