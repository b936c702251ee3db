"""Reading records: from the page cache at once, from the disk in a thread, always checked.

Rules. A row of the index is a claim, not a proof: the record must be the one that the row names, and its checksums
must hold, else it is Corrupt. What is wrong with a segment that was unlinked meanwhile is no damage: compaction cut it
off, and FileNotFoundError says to look the fragment up again.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from holdfast.core.disk import Disk, File
from holdfast.core.errors import Corrupt
from holdfast.core.limits import KIB, LEAF_BYTES
from holdfast.core.ranges import ByteRange
from holdfast.drives.buffers import BufferPool
from holdfast.drives.interface import FragmentKey, FragmentPart, whole_leaves
from holdfast.drives.records import Head, Kind, check_payload, read_head
from holdfast.drives.rows import Row
from holdfast.drives.segments import FIRST_GENERATION, SEGMENTS_NAME, segment_path

# Segments kept open for reading, of each drive and process. A descriptor each.
HANDLES_MAX_COUNT = 128

# A quarter of a sealed 1 MiB block, and its head. Copying and checking that takes some 80 us: the loop can bear it, and
# going through a thread costs more.
LOOP_READ_MAX_BYTES = 288 * KIB


class Reader:
    """Reads records of one drive. Safe to use from any thread."""

    def __init__(self, directory: Path, disk: Disk, pool: BufferPool) -> None:
        self._segments = directory / SEGMENTS_NAME
        self._disk = disk
        self._pool = pool
        self._handles: OrderedDict[bytes, File] = OrderedDict()
        self._lock = threading.Lock()

    def read_cached(
        self, row: Row, key: FragmentKey, range: ByteRange | None, into: memoryview | None = None
    ) -> FragmentPart:
        """Without waiting for the disk. Raises BlockingIOError when it would have to; else as `read`."""
        file = self._handles.get(row.segment)
        if file is None:
            raise BlockingIOError
        return self._read(file, row, key, range, into, cached=True)

    def read(self, row: Row, key: FragmentKey, range: ByteRange | None, into: memoryview | None = None) -> FragmentPart:
        """A whole payload goes `into` a view of its length, if one is given; else, and of a range, to a buffer of ours.

        Raises FileNotFoundError (the segment is gone: look up again), Corrupt, InvalidRequest, OSError.
        """
        return self._read(self._handle(row.segment), row, key, range, into, cached=False)

    def expect(self, row: Row) -> None:
        """Have the disk fetch a record that is about to be read. Raises OSError."""
        self._handle(row.segment).expect(row.offset, row.head_bytes + row.payload_bytes)

    def read_record(self, row: Row, key: FragmentKey) -> tuple[Head, memoryview]:
        """A whole record, head and payload, checked: for moving it."""
        payload = self._pool.lend(row.payload_bytes)
        return self._whole(self._handle(row.segment), row, key, payload, cached=False), payload

    def forget(self, segment: bytes) -> None:
        """Let go of a segment that was unlinked."""
        with self._lock:
            self._handles.pop(segment, None)

    def close(self) -> None:
        with self._lock:
            self._handles.clear()

    def _handle(self, segment: bytes) -> File:
        with self._lock:
            file = self._handles.get(segment)
            if file is not None:
                self._handles.move_to_end(segment)
                return file
        file = self._disk.open(segment_path(self._segments, segment))
        with self._lock:
            self._handles[segment] = file
            if len(self._handles) > HANDLES_MAX_COUNT:
                # Not closed but dropped: another thread may be reading from it.
                self._handles.popitem(last=False)
        return file

    def _read(
        self,
        file: File,
        row: Row,
        key: FragmentKey,
        range: ByteRange | None,
        into: memoryview | None,
        *,
        cached: bool,
    ) -> FragmentPart:
        length = row.payload_bytes
        start, end = whole_leaves(range, length)
        try:
            # Two reads cost more than one that is twice as long.
            if 2 * (end - start) >= length:
                payload = into if into is not None and len(into) == length else self._pool.lend(length)
                head = self._whole(file, row, key, payload, cached=cached, first=start, last=end)
                data = payload if end - start == length else payload[start:end]
            else:
                buffer = memoryview(bytearray(row.head_bytes))
                data = self._pool.lend(end - start)
                _fill(file, (buffer,), row.offset, cached=cached)
                head = _head(buffer, row, key)
                _fill(file, (data,), row.offset + row.head_bytes + start, cached=cached)
                check_payload(data, head.checksums, start // LEAF_BYTES, _where(row))
        except Corrupt:
            self._check_linked(file, row.segment)
            raise
        return FragmentPart(key, head.commitment, head.leaves, head.tag, length, start, data)

    def _check_linked(self, file: File, segment: bytes) -> None:
        path = segment_path(self._segments, segment)
        if not file.is_at(path):
            self.forget(segment)
            raise FileNotFoundError(f"{path} was compacted") from None

    def _whole(
        self,
        file: File,
        row: Row,
        key: FragmentKey,
        payload: memoryview,
        *,
        cached: bool,
        first: int = 0,
        last: int | None = None,
    ) -> Head:
        """Read `payload`, of which bytes `first` to `last` are checked, and its head."""
        buffer = memoryview(bytearray(row.head_bytes))
        _fill(file, (buffer, payload), row.offset, cached=cached)
        head = _head(buffer, row, key)
        check_payload(payload[first:last], head.checksums, first // LEAF_BYTES, _where(row))
        return head


def _fill(file: File, buffers: Sequence[memoryview], offset: int, *, cached: bool) -> None:
    if cached:
        count = file.read_cached_into(buffers, offset)
    else:
        count = 0
        for buffer in buffers:
            count += file.read_into(buffer, offset + count)
    if count != sum(map(len, buffers)):
        raise Corrupt(f"the segment ends at {offset + count}, within a record: it was cut off")


def _head(buffer: memoryview, row: Row, key: FragmentKey) -> Head:
    head = read_head(buffer, row.segment, FIRST_GENERATION, row.offset)
    there = (head.key, head.sequence, head.bytes, head.payload_bytes, head.kind)
    kinds = (Kind.FRAGMENT, Kind.TOMBSTONE)
    if there[:4] != (key, row.sequence, row.head_bytes, row.payload_bytes) or head.kind not in kinds:
        raise Corrupt(f"{_where(row)}: not the record that the index names")
    return head


def _where(row: Row) -> str:
    return f"segment {row.segment.hex()} offset {row.offset}"
