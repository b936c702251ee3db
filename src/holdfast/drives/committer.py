"""The group commit of one drive in one process: everything that arrived meanwhile goes to the disk in one write.

A thread takes what is queued, lays it out in aligned memory, writes and syncs it once, tells the index in one
transaction, and wakes all callers in one turn of their loop.

Rules.
- A call is answered only when its records are synced and the index has them, in that order: what the index says is
  always on stable storage.
- One sequence for a commit, above all that anybody had reserved before it began; so of two calls for one key the
  later one wins in the index and in every rebuild of it. Within a commit the last call for a key is the only one
  written.
- After a failed write or sync the segment is abandoned and the drive suspected: every later write is NodeDown.
- A full drive refuses puts; deletions, and the moves that make space, may use up the reserve.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk, File
from holdfast.core.errors import Full, HoldfastError, NodeDown
from holdfast.core.ids import Buffer, DriveId
from holdfast.core.limits import MIB
from holdfast.drives.index import Index
from holdfast.drives.interface import FragmentKey
from holdfast.drives.records import (
    PAGE_BYTES,
    Head,
    Kind,
    Place,
    aligned,
    encode_head,
    head_bytes,
    payload_checksums,
)
from holdfast.drives.reserve import NO_SPACE, Reserve
from holdfast.drives.rows import Update
from holdfast.drives.segments import FIRST_GENERATION, SEGMENTS_NAME, Entry, entry_of
from holdfast.drives.slab import Slab
from holdfast.drives.writer import SegmentWriter, create_segment

# A commit grows up to this and one record more: enough to hide the sync, little enough to wait for.
COMMIT_MAX_BYTES = 4 * MIB

# Bounds the index transaction of a commit: at some 15 us a row, as long as writing 4 MiB takes.
COMMIT_MAX_RECORDS = 1024


@dataclass(slots=True)
class Record:
    """What is to be written; a move brings the sequence and the place that it had."""

    kind: Kind
    key: FragmentKey
    commitment: bytes = b""
    leaves: bytes = b""
    tag: bytes = b""
    payload: Buffer = b""
    sequence: int | None = None
    source: Place | None = None
    bytes: int = field(init=False)
    """Bytes in the segment, without the padding of the commit."""

    def __post_init__(self) -> None:
        head = head_bytes(len(self.tag), len(self.commitment), len(self.leaves), len(self.payload))
        self.bytes = aligned(head + len(self.payload))


class Use(IntEnum):
    """What a call may use of the space that is put aside, so that a full drive can still delete and compact."""

    NONE = 0
    """Puts."""
    HEADROOM = 1
    """Moves: what they are about to free is more than they take."""
    RESERVE = 2
    """Deletions: the reserve gives way to them, too."""


@dataclass(slots=True, eq=False)
class Job:
    """One call that waits for its records."""

    records: list[Record]
    use: Use
    future: asyncio.Future[None]
    error: Exception | None = None
    taken: bool = False

    def finish(self) -> None:
        """On the loop: answer the caller."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(None)
        else:
            self.future.set_exception(self.error)


class Committer:
    """The only writer of one drive in this process."""

    def __init__(
        self,
        directory: Path,
        drive: DriveId,
        *,
        disk: Disk,
        randomness: Randomness,
        index: Index,
        reserve: Reserve,
        segment_bytes: int,
        allocation_bytes: int,
    ) -> None:
        self._directory = directory
        self._drive = drive
        self._disk = disk
        self._randomness = randomness
        self._index = index
        self._reserve = reserve
        self._slab = Slab()
        self._segment_bytes = segment_bytes
        self._allocation_bytes = allocation_bytes
        self._writer: SegmentWriter | None = None
        self._reserved: int | None = None
        self._failure: str | None = None
        self._abandoned: list[File] = []
        self._queue: deque[Job] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name=f"commit {drive.hex()[:8]}", daemon=True)
        self._thread.start()

    async def submit(self, records: list[Record], use: Use) -> None:
        """Write `records`; they are durable and indexed on return. Raises Full, NodeDown.

        A cancellation withdraws a call that is still queued. One whose commit has begun goes on without its caller, who
        may be going round a disk that hangs; it holds on to what it writes from.
        """
        job = Job(records, use, self._loop.create_future())
        with self._wake:
            if self._failure is not None:
                raise NodeDown(self._failure)
            if self._closing:
                raise NodeDown("the drive is closed")
            self._queue.append(job)
            self._wake.notify()
        try:
            await job.future
        except asyncio.CancelledError:
            self._withdraw(job)
            raise

    def close(self) -> None:
        """Write what is queued, close the segment, end the thread. Blocks: not on the loop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join()

    @property
    def failure(self) -> str | None:
        """Why the drive is suspected; None while it is not."""
        return self._failure

    def _withdraw(self, job: Job) -> None:
        with self._wake:
            if not job.taken:
                self._queue.remove(job)

    # The thread

    def _run(self) -> None:
        while jobs := self._take():
            try:
                self._commit(jobs)
            except OSError as error:
                self._suspect(jobs, f"the disk failed ({error.strerror or error})")
            except HoldfastError as error:
                self._suspect(jobs, str(error))
            except Exception as error:  # noqa: BLE001  the thread must outlive its bugs, or every caller hangs
                self._suspect(jobs, f"a bug in the committer: {error!r}")
            self._answer(jobs)
        try:
            self._finish_segment()
        except (OSError, HoldfastError):
            # Whoever opens the drive next finds the segment without its owner, and closes it.
            pass

    def _take(self) -> list[Job]:
        """What is queued, up to a commit's limits; the empty list means the end."""
        with self._wake:
            while not self._queue and not self._closing:
                self._wake.wait()
            jobs: list[Job] = []
            length = records = 0
            while self._queue and length < COMMIT_MAX_BYTES and records < COMMIT_MAX_RECORDS:
                job = self._queue.popleft()
                job.taken = True
                length += sum(record.bytes for record in job.records)
                records += len(job.records)
                jobs.append(job)
            return jobs

    def _answer(self, jobs: list[Job]) -> None:
        try:
            self._loop.call_soon_threadsafe(_finish_all, jobs)
        except RuntimeError:
            # The loop was closed under its callers: nobody is left to hear it.
            pass

    def _commit(self, jobs: list[Job]) -> None:
        """Raises only what makes the drive suspect."""
        if self._failure is not None:
            for job in jobs:
                job.error = NodeDown(self._failure)
            return
        left = jobs
        while left:
            use = min(job.use for job in left)
            try:
                self._write(left, use)
            except Full as error:
                if use is Use.RESERVE and self._reserve.release():
                    continue
                for job in left:
                    if job.use is use:
                        job.error = Full(str(error))
                # Those who may use more are tried without the others.
                left = [job for job in left if job.use > use]
            else:
                return

    def _write(self, jobs: list[Job], use: Use) -> None:
        """One commit. Raises Full, after which nothing of it counts; whatever else it raises is the drive's end."""
        records = _newest(jobs)
        sequence = self._sequence()
        length = aligned(sum(record.bytes for record in records), PAGE_BYTES)
        writer = self._writer_for(length, len(records), use)
        entries, buffers = _encode(records, sequence, writer, length)
        try:
            writer.append(self._slab.pieces(buffers))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise Full(f"no space left on {self._directory}: delete something, or add a drive") from error
            raise

        def change(update: Update, clock: int) -> int:
            for record, entry in zip(records, entries, strict=True):
                if record.source is None:
                    update.apply(entry)
                else:
                    update.move(entry, record.source)
            update.set_clock(clock + 1)
            return clock + 1

        self._reserved = self._index.write(change)
        writer.advance(entries, length)

    def _sequence(self) -> int:
        """Above every sequence of a call that was answered by now, and nobody else's.

        Each commit reserves the next one; that is still good if no other process has reserved one since.
        """
        reserved, self._reserved = self._reserved, None
        if reserved is not None and self._index.is_clock(reserved):
            return reserved
        return self._index.reserve()

    def _writer_for(self, length: int, records: int, use: Use) -> SegmentWriter:
        writer = self._writer
        if writer is not None and not writer.fits(length, records, self._segment_bytes):
            self._finish_segment()
            writer = None
        end = (writer.position if writer is not None else PAGE_BYTES) + length
        if writer is None or end > writer.allocated:
            step = self._allowed_step(end, use)
            try:
                if writer is None:
                    writer = create_segment(
                        self._disk, self._randomness, self._directory / SEGMENTS_NAME, self._drive, step
                    )
                    self._writer = writer
                else:
                    writer.allocate(step)
            except OSError as error:
                if error.errno in NO_SPACE:
                    raise Full(f"no space left on {self._directory}: delete something, or add a drive") from error
                raise
        return writer

    def _allowed_step(self, end: int, use: Use) -> int:
        """How far to reserve blocks, to hold `end`. Puts leave the reserve whole and the headroom free."""
        step = aligned(end, self._allocation_bytes)
        allocated = self._writer.allocated if self._writer is not None else 0
        spare = self._disk.space(self._directory).free - self._reserve.headroom
        if use is Use.NONE and (spare < end - allocated or not self._reserve.refill()):
            raise Full(f"no space left on {self._directory}: delete something, or add a drive")
        return step if spare >= step - allocated else end

    def _finish_segment(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None or self._failure is not None:
            return
        if writer.is_empty:
            writer.discard(self._disk)
            return
        try:
            writer.finish(self._disk)
        except OSError:
            # Without a footer the segment is scanned; every record of it was synced before it counted.
            self._abandoned.append(writer.abandon())
            return
        self._index.write(lambda update, _: update.set_end(writer.segment, writer.position, closed=True))

    def _suspect(self, jobs: Sequence[Job], reason: str) -> None:
        self._failure = f"drive {self._directory} takes no writes until it is opened again: {reason}. Check the disk"
        if self._writer is not None:
            self._abandoned.append(self._writer.abandon())
            self._writer = None
        for job in jobs:
            if job.error is None:
                job.error = NodeDown(self._failure)


def _newest(jobs: Sequence[Job]) -> list[Record]:
    """The records to write, of each key only the last; moves are copies and concern no other call."""
    newest: dict[FragmentKey, Record] = {}
    moves: list[Record] = []
    for job in jobs:
        for record in job.records:
            if record.source is None:
                newest[record.key] = record
            else:
                moves.append(record)
    return moves + list(newest.values())


def _encode(
    records: Sequence[Record], sequence: int, writer: SegmentWriter, length: int
) -> tuple[list[Entry], list[Buffer]]:
    """Lay the records of a commit of `length` bytes out: their entries, and the buffers that make it up in turn."""
    entries: list[Entry] = []
    buffers: list[Buffer] = []
    at = 0
    for number, record in enumerate(records, 1):
        payload = record.payload
        span = record.bytes if number < len(records) else length - at
        head = Head(
            record.kind,
            record.key,
            sequence if record.sequence is None else record.sequence,
            writer.commit,
            Place(writer.segment, writer.position + at, span),
            record.tag,
            record.commitment,
            record.leaves,
            payload_checksums(payload),
            len(payload),
        )
        encoded = encode_head(head, FIRST_GENERATION)
        buffers += (encoded, payload, bytes(span - len(encoded) - len(payload)))
        entries.append(entry_of(head))
        at += span
    return entries, buffers


def _finish_all(jobs: list[Job]) -> None:
    for job in jobs:
        job.finish()
