"""Compaction: what lives in a wasteful segment moves to the open one, and the segment is unlinked.

Rules.
- A move is a copy with the same sequence, appended and synced like any record; it becomes the live one only if the
  index still names the place it was copied from. Whoever put or deleted meanwhile wins.
- Tombstones move too, as long as some segment holds an older record of their key.
- A segment is unlinked as a whole, durably, before the index forgets that it cast shadows; then it is cut off, since
  others may have it open for long. Unlinking and forgetting are in one transaction of the index with the look whether
  anything lives there: who made the index anew in between could have taken a copy there for the living one.
- It is locked while it is worked on, so no two processes work on one, and none on an open one.
- A record that cannot be read is not moved and its segment stays, so that it goes on to be reported as Corrupt until
  somebody has put or deleted it.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from holdfast.core.disk import Disk, File
from holdfast.core.errors import Corrupt, Full
from holdfast.core.ids import DriveId
from holdfast.core.limits import MIB
from holdfast.drives.adoption import adopt_segments
from holdfast.drives.committer import Committer, Record, Use
from holdfast.drives.index import Index
from holdfast.drives.interface import FragmentKey
from holdfast.drives.reader import Reader
from holdfast.drives.records import PAGE_BYTES, Kind, Place
from holdfast.drives.reserve import Reserve
from holdfast.drives.rows import Row, SegmentBooks, Update, encode_key
from holdfast.drives.segments import SEGMENTS_NAME, Entry, read_contents, segment_path

# Moved in one commit: bounds memory, and how long puts wait behind it.
MOVE_MAX_BYTES = MIB

# Every process that wrote something leaves a segment: this many that hold less than a sixteenth each are merged.
SMALL_SEGMENTS_MAX_COUNT = 32
SMALL_SEGMENT_SHARE = 16

# Records looked at in one step, whatever they weigh: a segment of tombstones must not take a step for ever.
STEP_MAX_RECORDS = 4096


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a step did."""

    segment: str | None
    """The segment that was worked on, by its hex id; None when there was nothing to do."""
    moved_bytes: int
    freed_bytes: int
    """What unlinking it gave back; 0 while it still holds something."""
    unreadable: tuple[FragmentKey, ...]
    """Fragments that keep it from going: put them anew, or delete them."""


NOTHING_TO_DO = Compaction(None, 0, 0, ())


class Compactor:
    """Compacts one drive, a step at a time."""

    def __init__(
        self,
        directory: Path,
        drive: DriveId,
        disk: Disk,
        index: Index,
        reader: Reader,
        committer: Committer,
        reserve: Reserve,
        segment_bytes: int,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._directory = directory
        self._drive = drive
        self._disk = disk
        self._index = index
        self._reader = reader
        self._committer = committer
        self._reserve = reserve
        self._small_bytes = segment_bytes // SMALL_SEGMENT_SHARE
        self._in_thread = in_thread
        # Segments that unreadable records keep in place; tried again after a restart.
        self._stuck: set[bytes] = set()

    async def step(self, budget_bytes: int, wasted_share: float) -> Compaction:
        await self._in_thread(self._adopt)
        for segment, _ in await self._in_thread(partial(self._candidates, wasted_share)):
            file = await self._in_thread(partial(self._lock, segment))
            if file is not None:
                # Not closed but dropped, lock and all: a thread may still be at work on it when we are cancelled.
                return await self._compact(segment, file, budget_bytes)
        await self._in_thread(self._reserve.refill)
        return NOTHING_TO_DO

    def _adopt(self) -> None:
        """Close the segments of processes that died: as deleting does, that is worth the reserve."""
        while True:
            try:
                adopt_segments(self._directory, self._drive, self._disk, self._index)
            except Full:
                if self._reserve.release():
                    continue
            return

    def _candidates(self, wasted_share: float) -> list[tuple[bytes, SegmentBooks]]:
        """Closed segments that are worth it, the most wasteful first."""
        closed = [
            (segment, books)
            for segment, books in self._index.books().items()
            if books.closed and segment not in self._stuck
        ]
        found = [line for line in closed if _wasted(line[1]) >= wasted_share]
        found.sort(key=lambda line: _wasted(line[1]), reverse=True)
        small = [line for line in closed if line[1].end < self._small_bytes]
        if not found and len(small) >= SMALL_SEGMENTS_MAX_COUNT:
            return sorted(small, key=lambda line: line[1].end)
        return found

    def _lock(self, segment: bytes) -> File | None:
        path = segment_path(self._directory / SEGMENTS_NAME, segment)
        try:
            file = self._disk.open(path)
        except FileNotFoundError:
            # Unlinked by somebody who died before the index heard of it.
            self._index.write(lambda update, _: update.forget_segment(segment, ()))
            return None
        try:
            file.lock(exclusive=True)
        except BlockingIOError:
            file.close()
            return None
        return file

    async def _compact(self, segment: bytes, file: File, budget_bytes: int) -> Compaction:
        contents = await self._in_thread(partial(read_contents, file, segment))
        moved = 0
        unreadable: list[FragmentKey] = []
        batch: list[Record] = []
        batch_bytes = 0
        work = await self._in_thread(partial(self._living, contents.entries))
        complete = len(work) <= STEP_MAX_RECORDS
        for entry, row in work[:STEP_MAX_RECORDS]:
            if moved + batch_bytes >= budget_bytes:
                complete = False
                break
            try:
                batch.append(await self._in_thread(partial(self._read, entry, row)))
            except Corrupt:
                unreadable.append(entry.key)
                continue
            batch_bytes += entry.place.span
            if batch_bytes >= MOVE_MAX_BYTES:
                await self._move(batch)
                moved, batch, batch_bytes = moved + batch_bytes, [], 0
        if batch:
            await self._move(batch)
            moved += batch_bytes
        freed = 0
        if complete and not unreadable:
            freed = await self._in_thread(partial(self._unlink, segment, file, contents.entries))
        if complete and unreadable:
            self._stuck.add(segment)
        return Compaction(segment.hex(), moved, freed, tuple(unreadable))

    def _living(self, entries: list[Entry]) -> list[tuple[Entry, Row]]:
        """The entries that the index names as the newest of their key."""
        keys = [encode_key(entry.key) for entry in entries]
        fragments = self._index.rows(keys, deleted=False)
        tombstones = self._index.rows(keys, deleted=True)
        living = []
        for entry, fragment, tombstone in zip(entries, fragments, tombstones, strict=True):
            row = fragment if entry.kind is Kind.FRAGMENT else tombstone
            if row is not None and row.is_at(entry.place):
                living.append((entry, row))
        return living

    def _read(self, entry: Entry, row: Row) -> Record:
        head, payload = self._reader.read_record(row, entry.key)
        place = Place(row.segment, row.offset, row.span)
        return Record(
            head.kind, head.key, head.commitment, head.leaves, head.tag, payload, sequence=head.sequence, source=place
        )

    async def _move(self, records: list[Record]) -> None:
        await self._committer.submit(records, Use.HEADROOM)

    def _unlink(self, segment: bytes, file: File, entries: list[Entry]) -> int:
        size = file.size()
        path = segment_path(self._directory / SEGMENTS_NAME, segment)

        def unlink(update: Update, _: int) -> bool:
            if any(map(update.lives, entries)):
                # The index was made anew since, and of two copies took the one that is here; the next step sees to it.
                return False
            # Done before, when this is tried again on an index that grew or was made anew.
            with suppress(FileNotFoundError):
                self._disk.unlink(path)
            self._disk.sync_directory(path.parent)
            update.forget_segment(segment, entries)
            return True

        if not self._index.write(unlink):
            return 0
        # Every process that reads keeps segments open: the space must not wait until the last of them has let go.
        file.truncate(0)
        self._reader.forget(segment)
        self._reserve.refill()
        return size


def _wasted(books: SegmentBooks) -> float:
    """The share of a segment that compaction would give back."""
    size = books.end - PAGE_BYTES
    return (size - books.fragments - books.tombstones) / size if size > 0 else 1.0
