"""The segment that a process appends to: its file, its lock, and where the next group commit goes.

Rules. One flock per segment: whoever holds it may append to, close or unlink the segment, and death frees it. A
commit that failed in the write or the sync leaves the file in a state that nobody knows: the segment is abandoned,
lock and all, and never written again.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk, File
from holdfast.core.errors import NodeDown
from holdfast.core.ids import Buffer, DriveId
from holdfast.drives.records import PAGE_BYTES, SEGMENT_ID_BYTES
from holdfast.drives.segments import (
    SEGMENT_RECORDS_MAX_COUNT,
    Entry,
    encode_entry,
    encode_footer,
    encode_header,
    segment_path,
)


class SegmentWriter:
    """An open segment. One thread uses it."""

    def __init__(self, file: File, path: Path, segment: bytes, allocated: int) -> None:
        self._file = file
        self._path = path
        self.segment = segment
        self.position = PAGE_BYTES
        """Where the next commit begins."""
        self.commit = 1
        """The number that the next commit's records carry."""
        self.allocated = allocated
        self._count = 0
        self._entries = bytearray()

    def fits(self, length: int, records: int, limit: int) -> bool:
        """Whether a commit goes into this segment; a first one always does."""
        if self._count == 0:
            return True
        return self.position + length <= limit and self._count + records <= SEGMENT_RECORDS_MAX_COUNT

    def allocate(self, length: int) -> None:
        """Reserve blocks up to `length`. OSError(ENOSPC) changes nothing."""
        if length > self.allocated:
            self._file.allocate(length)
            self.allocated = length

    def append(self, pieces: Iterable[Buffer]) -> None:
        """Write a group commit, pieces of whole pages one after the other, and sync it.

        After OSError(ENOSPC) the next commit may take its place; any other error means: abandon the segment.
        """
        # The number is used up even if this fails: a remnant must never look like part of a later commit.
        self.commit += 1
        at = self.position
        for piece in pieces:
            self._file.write([piece], at)
            at += len(piece)
        try:
            self._file.sync()
        except OSError as error:
            # Whatever the reason, the pages may be lost and marked clean: trying again would lie.
            raise NodeDown(f"{self._path} could not be synced ({error.strerror})") from error
        if not self._file.is_at(self._path):
            raise NodeDown(f"{self._path} is not there any more: was the disk pulled, or the file deleted?")

    def advance(self, entries: Sequence[Entry], length: int) -> None:
        """The commit just appended counts: the index has it."""
        for entry in entries:
            self._entries += encode_entry(entry)
        self._count += len(entries)
        self.position += length

    @property
    def is_empty(self) -> bool:
        return self._count == 0

    def finish(self, disk: Disk) -> None:
        """Write the footer, give back what was reserved behind it, and let go of the segment."""
        footer = encode_footer(self.segment, self.position, self._count, bytes(self._entries))
        # A footer lies in ordinary memory, which O_DIRECT does not take.
        file = disk.open(self._path)
        try:
            write_footer(file, self.position, footer)
        finally:
            file.close()
        self._file.close()

    def discard(self, disk: Disk) -> None:
        """Unlink a segment that holds nothing."""
        disk.unlink(self._path)
        self._file.close()

    def abandon(self) -> File:
        """The file, lock and all, to hold on to: as long as we live nobody shall mistake it for a crashed one."""
        return self._file


def write_footer(file: File, end: int, footer: bytes) -> None:
    """Put `footer` at `end` and end the file there; durable."""
    file.write([footer], end)
    file.truncate(end + len(footer))
    file.sync()


def create_segment(
    disk: Disk, randomness: Randomness, directory: Path, drive: DriveId, allocated: int
) -> SegmentWriter:
    """A new segment, locked by us, its name durable. Raises OSError."""
    while True:
        segment = randomness.bytes(SEGMENT_ID_BYTES)
        path = segment_path(directory, segment)
        try:
            file = disk.open(path, exclusive=True, direct=True)
        except FileExistsError:
            continue
        try:
            file.lock(exclusive=True)
        except BlockingIOError:
            # Somebody who looks for crashed segments was faster; it will find this one empty and remove it.
            file.close()
            continue
        if not file.is_at(path):
            file.close()
            continue
        try:
            file.allocate(allocated)
            _write_header(disk, path, encode_header(segment, drive))
            disk.sync_directory(directory)
        except OSError:
            disk.unlink(path)
            file.close()
            raise
        return SegmentWriter(file, path, segment, allocated)


def _write_header(disk: Disk, path: Path, header: bytes) -> None:
    file = disk.open(path)
    try:
        file.write([header], 0)
        file.sync()
    finally:
        file.close()
