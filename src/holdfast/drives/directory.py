"""A drive in a directory: log-structured, group-committed, shared by any number of processes.

Rules.
- Writes go through this process's `Committer`; reads look up the index and read the segment, the cached ones on the
  loop, the others in a thread.
- A record never changes its place but by compaction, which unlinks a segment only when everything in it that lives
  has moved: a reader whose segment is gone looks up again, once.
- Everything blocking happens in threads of this drive; cancelling a call never stops one half-way.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

from holdfast.core.attendance import Attendance, NoAttendance
from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import Corrupt, Full, HoldfastError, NodeDown
from holdfast.core.ids import DriveId, StoreId
from holdfast.core.limits import MIB
from holdfast.core.ranges import ByteRange
from holdfast.drives.adoption import adopt_segments
from holdfast.drives.buffers import BufferPool
from holdfast.drives.committer import Committer, Record, Use
from holdfast.drives.compaction import Compaction, Compactor
from holdfast.drives.environment import MAP_BYTES, StaleIndex
from holdfast.drives.identity import Identity, check_identity, read_identity
from holdfast.drives.index import Index, acquire_index, release_index
from holdfast.drives.interface import DriveUsage, Fragment, FragmentInfo, FragmentKey, FragmentPart
from holdfast.drives.limits import check_fragment_limits
from holdfast.drives.reader import LOOP_READ_MAX_BYTES, Reader
from holdfast.drives.records import PAGE_BYTES, Kind
from holdfast.drives.reserve import NO_SPACE, RESERVE_MAX_BYTES, RESERVE_SHARE, Reserve
from holdfast.drives.rows import Row
from holdfast.drives.segments import ALLOCATION_STEP_BYTES, SEGMENT_MAX_BYTES
from holdfast.drives.trust import RECOVERIES_MAX_COUNT

# Enough to keep a disk's queue busy; more only wait for each other.
READER_THREADS = 4

# On a small drive segments are small too, but never so small that footers and unlinks matter.
SEGMENT_MIN_BYTES = 4 * MIB

# Index rows that the loop may read in one go: some 2 us each.
LOOP_ROWS_MAX_COUNT = 100

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DriveSizes:
    """Sizes that small drives, and tests, make small. Bytes."""

    segment: int = SEGMENT_MAX_BYTES
    """Put aside as well, so that a full drive can move what lives in any segment out of it."""
    allocation: int = ALLOCATION_STEP_BYTES
    index_map: int = MAP_BYTES
    reserve: int = RESERVE_MAX_BYTES

    @classmethod
    def of(cls, total_bytes: int) -> Self:
        """For a file system of that size: what is put aside, or lies in open segments, stays a small part."""
        segment = min(SEGMENT_MAX_BYTES, max(SEGMENT_MIN_BYTES, total_bytes // RESERVE_SHARE))
        return cls(segment=segment, allocation=min(ALLOCATION_STEP_BYTES, segment))


class DirectoryDrive:
    """One drive, as one process has it open. Make it with `open_drive`."""

    def __init__(
        self,
        directory: Path,
        identity: Identity,
        *,
        disk: Disk,
        index: Index,
        reserve: Reserve,
        committer: Committer,
        pool: BufferPool,
        segment_bytes: int,
    ) -> None:
        self._directory = directory
        self._identity = identity
        self._disk = disk
        self._index = index
        self._reserve = reserve
        self._committer = committer
        self._reader = Reader(directory, disk, pool)
        self._compactor = Compactor(
            directory, identity.drive, disk, index, self._reader, committer, reserve, segment_bytes, self._in_thread
        )
        self._threads = ThreadPoolExecutor(READER_THREADS, thread_name_prefix=f"drive {identity.drive.hex()[:8]}")
        self._closing: asyncio.Task[None] | None = None

    @property
    def id(self) -> DriveId:
        return self._identity.drive

    @property
    def directory(self) -> Path:
        return self._directory

    @property
    def failure(self) -> str | None:
        """Why this process writes to the drive no more; None while it does."""
        return self._committer.failure

    async def put(self, fragments: Sequence[Fragment]) -> None:
        self._check_open()
        for fragment in fragments:
            check_fragment_limits(fragment)
        if fragments:
            records = [Record(Kind.FRAGMENT, f.key, f.commitment, f.leaves, f.tag, f.payload) for f in fragments]
            await self._committer.submit(records, Use.NONE)

    async def get(self, key: FragmentKey, range: ByteRange | None = None) -> FragmentPart:
        self._check_open()
        row = await self._ask(self._index.lookup, key)
        try:
            return await self._read(row, key, range)
        except FileNotFoundError:
            again = await self._ask(self._index.lookup, key)
        try:
            return await self._read(again, key, range)
        except FileNotFoundError:
            raise Corrupt(f"segment {again.segment.hex()} of {self._directory} is missing") from None

    def get_at_once(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        self._check_open()
        try:
            return self._reader.read_cached(self._index.lookup(key), key, None, into)
        except (StaleIndex, OSError):
            # `get` knows what to do then.
            raise BlockingIOError from None

    def get_here(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        self._check_open()
        try:
            return self._reader.read(self._index.lookup(key), key, None, into)
        except (StaleIndex, OSError):
            raise BlockingIOError from None

    def expect(self, key: FragmentKey) -> None:
        with suppress(HoldfastError, StaleIndex, OSError):
            self._check_open()
            self._reader.expect(self._index.lookup(key))

    async def has(self, keys: Sequence[FragmentKey]) -> list[bool]:
        self._check_open()
        return await self._ask(self._index.contains, keys, rows=len(keys))

    async def delete(self, keys: Sequence[FragmentKey]) -> None:
        self._check_open()
        if keys:
            await self._committer.submit([Record(Kind.TOMBSTONE, key) for key in keys], Use.RESERVE)

    async def list(self, after: FragmentKey | None = None, limit: int = 1000) -> list[FragmentInfo]:
        self._check_open()
        return await self._ask(self._index.page, after, limit, rows=limit)

    async def usage(self) -> DriveUsage:
        self._check_open()
        return await self._ask(self._measure, rows=LOOP_ROWS_MAX_COUNT + 1)

    async def compact(self, *, budget_bytes: int, wasted_share: float = 0.25) -> Compaction:
        """One step of compaction: moves at most about `budget_bytes` out of the most wasteful segment.

        Segments of which less than `wasted_share` is dead are left alone. Also closes segments of processes that
        died. Raises Full (no room to move to), NodeDown, Corrupt.
        """
        self._check_open()
        while True:
            try:
                return await self._compactor.step(budget_bytes, wasted_share)
            except StaleIndex as error:
                await self._recover(error)
            except OSError as error:
                raise NodeDown(f"drive {self._directory} fails ({error.strerror}): check the disk") from error

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._committer.close)
        await loop.run_in_executor(None, self._threads.shutdown)
        self._reader.close()
        await loop.run_in_executor(None, release_index, self._index)

    async def _ask(self, question: Callable[..., T], *arguments: object, rows: int = 1) -> T:
        """Put a question to the index, after a recovery if it needs one."""
        for _ in range(RECOVERIES_MAX_COUNT):
            try:
                if rows <= LOOP_ROWS_MAX_COUNT:
                    return question(*arguments)
                return await self._in_thread(partial(question, *arguments))
            except StaleIndex as error:
                await self._recover(error)
        raise NodeDown(f"the index of {self._directory} cannot be read: check the disk")

    async def _recover(self, error: StaleIndex) -> None:
        try:
            await self._in_thread(partial(self._index.recover, error))
        except OSError as failure:
            raise NodeDown(f"drive {self._directory} fails ({failure.strerror}): check the disk") from failure

    async def _read(self, row: Row, key: FragmentKey, range: ByteRange | None) -> FragmentPart:
        if row.head_bytes + row.payload_bytes <= LOOP_READ_MAX_BYTES:
            try:
                return self._reader.read_cached(row, key, range)
            except OSError:
                # Not in memory; or the file system is dead and says so at once, which is told as it is below.
                pass
        try:
            return await self._in_thread(partial(self._reader.read, row, key, range))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise NodeDown(f"drive {self._directory} cannot be read ({error.strerror}): check the disk") from error

    async def _in_thread(self, call: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, call)
        except RuntimeError:
            self._check_open()
            raise

    def _measure(self) -> DriveUsage:
        try:
            space = self._disk.space(self._directory)
        except OSError as error:
            raise NodeDown(f"drive {self._directory} does not answer ({error.strerror}): check the disk") from error
        live = dead = 0
        for book in self._index.books().values():
            live += book.fragments
            dead += max(0, book.end - PAGE_BYTES - book.fragments - book.tombstones)
        free = max(0, space.free - self._reserve.headroom)
        return DriveUsage(space.total, free, live, dead, self._index.count())

    def _check_open(self) -> None:
        if self._closing is not None:
            raise NodeDown(f"drive {self._directory} is closed")


async def open_drive(
    directory: Path,
    *,
    disk: Disk,
    randomness: Randomness,
    store: StoreId,
    drive: DriveId | None = None,
    pool: BufferPool | None = None,
    sizes: DriveSizes | None = None,
    attendance: Attendance | None = None,
) -> DirectoryDrive:
    """Open the drive of `store` at `directory`; with `drive`, only if it is that one. `pool` is best shared.

    Rebuilds the index if it cannot be trusted, which takes as long as reading what segments list. Raises NodeDown
    (missing, or it does not answer), InvalidRequest (of another store), Corrupt (its identity), AccessDenied.
    """
    buffers = pool if pool is not None else BufferPool()
    identity, index, reserve, chosen = await asyncio.to_thread(
        _open_parts, directory, disk, randomness, store, drive, sizes, attendance or NoAttendance()
    )
    committer = Committer(
        directory,
        identity.drive,
        disk=disk,
        randomness=randomness,
        index=index,
        reserve=reserve,
        segment_bytes=chosen.segment,
        allocation_bytes=chosen.allocation,
    )
    return DirectoryDrive(
        directory,
        identity,
        disk=disk,
        index=index,
        reserve=reserve,
        committer=committer,
        pool=buffers,
        segment_bytes=chosen.segment,
    )


def _open_parts(
    directory: Path,
    disk: Disk,
    randomness: Randomness,
    store: StoreId,
    drive: DriveId | None,
    sizes: DriveSizes | None,
    attendance: Attendance,
) -> tuple[Identity, Index, Reserve, DriveSizes]:
    identity = read_identity(disk, directory)
    check_identity(identity, directory, store=store, drive=drive)
    try:
        sizes = sizes if sizes is not None else DriveSizes.of(disk.space(directory).total)
        reserve = Reserve(disk, directory, sizes.reserve, sizes.segment)
        reserve.refill()
        acquire = partial(acquire_index, directory, disk, identity.drive, randomness, sizes.index_map, attendance)
        index = _acquire(acquire, reserve)
        try:
            adopt_segments(directory, identity.drive, disk, index)
        except (Full, StaleIndex):
            # It waits for the next open or compaction; until then the segment is scanned when the index is rebuilt.
            pass
        except BaseException:
            release_index(index)
            raise
    except OSError as error:
        raise NodeDown(f"drive {directory} does not answer ({error.strerror}): check the disk") from error
    return identity, index, reserve, sizes


def _acquire(acquire: Callable[[], Index], reserve: Reserve) -> Index:
    while True:
        try:
            return acquire()
        except (Full, OSError) as error:
            # Even a sound index is marked as in use, which takes a page.
            has_room = isinstance(error, OSError) and error.errno not in NO_SPACE
            if has_room or not reserve.release():
                raise
