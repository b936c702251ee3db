"""One mirror: a drive's copy of the log, as segment files in its metadata directory.

Rules. `log-<sequence of its first record, 16 hex digits>` is a segment; every mirror has the same ones with the same
bytes at the same offsets, so any mirror can be patched from any other. A segment is full length from the start, and
its blocks have been written once before they are used: then a sync has no metadata to write. `spare` is the next one,
made ahead of time; an old segment becomes it when its records are no longer needed. What is left in it has lower
sequences than what could follow, so it is not read as records, nor as traces of lost ones (`log.comes_later`).
`reserve` only takes up room, and is given up to let a full drive delete.
Errors are OSError: the caller drops the mirror.
"""

import errno
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.disk import Disk, File
from holdfast.core.ids import Buffer, DriveId
from holdfast.meta.local.log import (
    ALIGN_BYTES,
    HEADER_BYTES,
    Position,
    Record,
    comes_later,
    decode_record,
    payload_bytes,
)

SEGMENT_PREFIX = "log-"
SPARE_NAME = "spare"
RESERVE_NAME = "reserve"

# Zeros are written this much at a time.
_FILL_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sizes:
    """Room that the log takes on each mirror, bytes. All processes of a store give the same."""

    segment: int = 16 * 1024 * 1024
    """A segment, and the spare: about a second of commits at full speed, and little to fill ahead of time."""
    reserve: int = 16 * 1024 * 1024
    """Given up when the disk is full, so that the view can take deletions."""
    log: int = 256 * 1024 * 1024
    """The log may grow to this, or to the size of the newest checkpoint if that is more, before the next."""


def segment_name(first: int) -> str:
    return f"{SEGMENT_PREFIX}{first:016x}"


def segment_numbers(names: Sequence[str]) -> list[int]:
    """The segments among a directory's names, in order."""
    tails = [name.removeprefix(SEGMENT_PREFIX) for name in names if name.startswith(SEGMENT_PREFIX)]
    return sorted(int(tail, 16) for tail in tails if len(tail) == 16 and not set(tail) - set("0123456789abcdef"))


class Mirror:
    """The log's files in `path`. Used by one thread at a time."""

    def __init__(self, disk: Disk, drive: DriveId, path: Path) -> None:
        self.drive = drive
        self.path = path
        self._disk = disk
        self._file: File | None = None
        self._segment = 0
        self._length = 0

    def __repr__(self) -> str:
        return f"Mirror({self.path})"

    def segments(self) -> list[int]:
        """The segments that are there, oldest first."""
        return segment_numbers(self._disk.list_directory(self.path))

    def use(self, segment: int) -> File:
        """Open a segment, unless it is the one in use. FileNotFoundError when it is not there."""
        if self._file is None or self._segment != segment:
            file = self._disk.open(self.path / segment_name(segment))
            self.close()
            self._file, self._segment, self._length = file, segment, file.size()
        return self._file

    def room(self, position: Position) -> int:
        """Bytes left behind `position` in its segment."""
        self.use(position.segment)
        return self._length - position.offset

    def write(self, segment: int, offset: int, buffers: Sequence[Buffer]) -> None:
        self.use(segment).write(buffers, offset)

    def sync(self) -> None:
        """Put what was written on stable storage. OSError(ESTALE) when it went into a file that is no segment any more:
        the drive was wiped, or another process took back the segment and made it anew."""
        assert self._file is not None
        self._file.sync()
        if not self._file.is_linked():
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), str(self.path / segment_name(self._segment)))

    def read_next(self, position: Position, segment: int, offset: int) -> Record | None:
        """The record that follows `position`, if it lies at `offset` of `segment`."""
        try:
            file = self.use(segment)
        except FileNotFoundError:
            return None
        head = bytearray(HEADER_BYTES)
        if file.read_into(memoryview(head), offset) < HEADER_BYTES:
            return None
        length = payload_bytes(head, position)
        if length is None:
            return None
        raw = bytearray(HEADER_BYTES + length)
        if file.read_into(memoryview(raw), offset) < len(raw):
            return None
        return decode_record(raw, position)

    def confirms(self, position: Position) -> bool:
        """Whether the record that `position` ends with is here, as its header says. False when it cannot be read."""
        head = bytearray(HEADER_BYTES)
        try:
            file = self.use(position.segment)
            if position.offset == 0:
                return True
            file.read_into(memoryview(head), position.last)
        except OSError:
            return False
        return bytes(head[-len(position.hash) :]) == position.hash

    def roll(self, segment: int, length: int) -> None:
        """Make `segment`, at least `length` bytes long, the one in use. OSError(ENOSPC) leaves the log as it was."""
        target = self.path / segment_name(segment)
        if not self._disk.exists(target):
            spare = self.path / SPARE_NAME
            if not self._disk.exists(spare):
                self._disk.open(spare, create=True).close()
            with_room = self._disk.open(spare)
            try:
                if with_room.size() < length:
                    with_room.allocate(length)
                    with_room.sync()
            finally:
                with_room.close()
            self._disk.rename(spare, target)
            self._disk.sync_directory(self.path)
        file = self.use(segment)
        if self._length < length:
            # Left by a roll that did not end, for a smaller record.
            file.allocate(length)
            file.sync()
            self._length = file.size()

    def copy(self, source: "Mirror", segment: int) -> None:
        """Take over a segment from another mirror, durably."""
        theirs = source.use(segment)
        length = theirs.size()
        target = self.path / segment_name(segment)
        ours = self._disk.open(target, create=True)
        try:
            ours.allocate(length)
            buffer = memoryview(bytearray(_FILL_BYTES))
            for offset in range(0, length, _FILL_BYTES):
                count = theirs.read_into(buffer, offset)
                ours.write((buffer[:count],), offset)
            ours.sync()
        finally:
            ours.close()
        self._disk.sync_directory(self.path)

    def unroll(self, segment: int) -> None:
        """Take back a `roll` behind which nothing was written: else the segment before would seem to end there."""
        target = self.path / segment_name(segment)
        if self._disk.exists(target):
            if self._segment == segment:
                self.close()
            self._disk.unlink(target)
            self._disk.sync_directory(self.path)

    def prepare(self, segment_bytes: int, reserve_bytes: int) -> None:
        """Make the spare and the reserve, if they are not there. OSError(ENOSPC) when there is no room.

        The reserve first: an old segment becomes the spare without taking room, but nothing else becomes the reserve.
        """
        self._fill(RESERVE_NAME, reserve_bytes, written=False)
        self._fill(SPARE_NAME, segment_bytes, written=True)

    def give_up_reserve(self) -> None:
        """Free the reserve's room."""
        if self._disk.exists(self.path / RESERVE_NAME):
            self._disk.unlink(self.path / RESERVE_NAME)

    def _fill(self, name: str, length: int, *, written: bool) -> None:
        """Make a file that takes up room, unless it is there or somebody else is making it.

        Upkeep and a committer, of any process, may come here at once. Whoever goes on writing zeros into a file that
        the other has finished writes them over the records for which it was taken meanwhile. So only who holds the
        lock of the unfinished file, and finds it still under that name, writes to it or gives it another.
        """
        path = self.path / name
        if self._disk.exists(path):
            return
        unfinished = self.path / f"{name}.new"
        file = self._disk.open(unfinished, create=True)
        try:
            try:
                file.lock(exclusive=True)
            except BlockingIOError:
                return
            if not file.is_at(unfinished):
                return
            file.allocate(length)
            zeros = bytes(_FILL_BYTES)
            for offset in range(0, length if written else 0, _FILL_BYTES):
                file.write((zeros[: length - offset],), offset)
            file.sync()
            self._disk.rename(unfinished, path)
        finally:
            file.close()
        self._disk.sync_directory(self.path)

    def forget_before(self, sequence: int) -> None:
        """Drop segments whose records all come before `sequence`; one becomes the next spare, if there is none."""
        for segment, behind in itertools.pairwise(self.segments()):
            if behind > sequence:
                break
            path = self.path / segment_name(segment)
            if self._disk.exists(self.path / SPARE_NAME):
                self._disk.unlink(path)
            else:
                # It has its room already, which a full disk might not give again.
                self._disk.rename(path, self.path / SPARE_NAME)

    def claims_more(self, position: Position) -> bool:
        """Whether there are traces of records behind the one that would follow `position`: then that one was lost.

        One record at a time is under way, so what comes after a record that is not whole was never written.
        """
        if any(segment > position.sequence + 1 for segment in self.segments()):
            return True
        places = dict.fromkeys(((position.segment, position.offset), (position.sequence + 1, 0)))
        return any(self._holds_later(segment, offset, position) for segment, offset in places)

    def _holds_later(self, segment: int, offset: int, position: Position) -> bool:
        """Whether a segment has, behind the place of the record that would follow `position`, a later one's header."""
        try:
            file = self.use(segment)
        except FileNotFoundError:
            return False
        head = bytearray(HEADER_BYTES)
        return any(
            file.read_into(memoryview(head), at) == HEADER_BYTES
            and comes_later(head, position, (at - offset) // ALIGN_BYTES)
            for at in range(offset, self._length, ALIGN_BYTES)
        )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._segment = None, 0
