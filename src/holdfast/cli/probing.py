"""What a directory and the disk under it can do, found out by doing it: `holdfast doctor`.

Rules. Everything happens in a scratch directory inside the one that is examined, whose name says whose it is; it is
removed at the end, and what a killed run left by the next. Nothing else is touched, so that a drive that is being
served can be examined too. Measurements go to the disk, past the page cache where the file system lets them.
"""

import asyncio
import mmap
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from struct import pack_into

from xxhash import xxh3_64

from holdfast.core.clock import Clock, Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import Corrupt, HoldfastError, NotFound
from holdfast.core.ids import BlockId, new_store_id
from holdfast.core.limits import KIB, LEAF_BYTES, MIB
from holdfast.drives.directory import DriveSizes, open_drive
from holdfast.drives.identity import create_drive
from holdfast.drives.interface import Drive, Fragment, FragmentKey

SCRATCH_PREFIX = ".holdfast-doctor-"

# Enough for a 99th percentile that means something, and half a second on a disk.
SYNCS_COUNT = 200
SYNC_BYTES = 4 * KIB

# One write of the throughput measurement, as large as the engine's.
STEP_BYTES = 1 * MIB
_PAGE_BYTES = 4 * KIB

# The drive that is made for trial: small, whatever the disk.
_TRIAL_SIZES = DriveSizes(segment=16 * MIB, allocation=4 * MIB, index_map=16 * MIB, reserve=4 * MIB)
_TRIAL_FRAGMENTS = (0, 1, 4 * KIB, LEAF_BYTES + 1, 256 * KIB, MIB + 3)

_LOCK_NAME = "lock"


@contextmanager
def scratch(disk: Disk, directory: Path) -> Iterator[Path]:
    """A directory of our own in there, and away with those of runs that were killed. Raises OSError."""
    for name in disk.list_directory(directory):
        if name.startswith(SCRATCH_PREFIX) and not _is_used(disk, directory / name):
            shutil.rmtree(directory / name, ignore_errors=True)
    own = directory / f"{SCRATCH_PREFIX}{os.getpid()}"
    own.mkdir(mode=0o700)
    try:
        lock = disk.open(own / _LOCK_NAME, create=True)
        try:
            lock.lock(exclusive=True)
            yield own
        finally:
            lock.close()
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _is_used(disk: Disk, other: Path) -> bool:
    """Whether another doctor is at work there."""
    try:
        lock = disk.open(other / _LOCK_NAME)
    except OSError:
        return False
    try:
        lock.lock(exclusive=True)
    except OSError:
        return True
    finally:
        lock.close()
    return False


def lacks(disk: Disk, own: Path) -> list[str]:
    """Which of the things that the engine stands on the file system does not do. Raises OSError."""
    wrong = []
    one, other = disk.open(own / "flock", create=True), disk.open(own / "flock")
    one.lock(exclusive=True)
    try:
        other.lock(exclusive=True)
        wrong.append("flock lets two in at once, so that two servers could have one drive")
    except BlockingIOError:
        pass
    one.close()
    other.close()
    disk.replace_file(own / "replaced", b"old")
    disk.replace_file(own / "replaced", b"new")
    if disk.read_file(own / "replaced") != b"new":
        wrong.append("a rename does not replace a file")
    file = disk.open(own / "allocated", create=True)
    file.allocate(MIB)
    if file.size() != MIB:
        wrong.append("fallocate does not make a file longer")
    file.write([b"kept"], 0)
    disk.unlink(own / "allocated")
    buffer = bytearray(4)
    if file.read_into(memoryview(buffer), 0) != 4 or buffer != b"kept":
        wrong.append("a file that is open cannot be read after its name is gone")
    file.close()
    disk.sync_directory(own)
    return wrong


def takes_direct(own: Path) -> bool:
    """Whether reads and writes can go past the page cache."""
    try:
        descriptor = os.open(own / "direct", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_DIRECT, 0o600)
    except OSError:
        return False
    try:
        with mmap.mmap(-1, _PAGE_BYTES) as page:
            return os.pwrite(descriptor, page, 0) == _PAGE_BYTES
    except OSError:
        return False
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class SyncTimes:
    """Seconds that an appended page takes to be on stable storage."""

    median: float
    worst_percent: float
    """The 99th percentile."""


def measure_syncs(disk: Disk, own: Path, clock: Clock) -> SyncTimes:
    """Append a page and sync, again and again, into allocated space as the engine does. Raises OSError."""
    file = disk.open(own / "syncs", create=True)
    file.allocate(SYNCS_COUNT * SYNC_BYTES)
    file.sync()
    page = b"\x5a" * SYNC_BYTES
    times = []
    for number in range(SYNCS_COUNT):
        began = clock.monotonic()
        file.write([page], number * SYNC_BYTES)
        file.sync()
        times.append(clock.monotonic() - began)
    file.close()
    times.sort()
    return SyncTimes(times[len(times) // 2], times[len(times) * 99 // 100])


@dataclass(frozen=True, slots=True)
class Throughput:
    """Bytes a second."""

    write: float
    read: float


def measure_throughput(disk: Disk, own: Path, clock: Clock, randomness: Randomness, length: int) -> Throughput:
    """Write so many bytes, sync, and read them back. Raises Corrupt when they come back as others, OSError."""
    file = disk.open(own / "throughput", create=True, direct=True)
    try:
        with mmap.mmap(-1, STEP_BYTES) as step:
            step[:] = randomness.bytes(STEP_BYTES)
            expected = xxh3_64()
            file.allocate(length)
            writing = 0.0
            for offset in range(0, length, STEP_BYTES):
                _stamp(step, offset)
                expected.update(step)
                began = clock.monotonic()
                file.write([memoryview(step)], offset)
                writing += clock.monotonic() - began
            began = clock.monotonic()
            file.sync()
            writing += clock.monotonic() - began
            found, reading = xxh3_64(), 0.0
            for offset in range(0, length, STEP_BYTES):
                began = clock.monotonic()
                count = file.read_into(memoryview(step), offset)
                reading += clock.monotonic() - began
                if count != STEP_BYTES:
                    raise Corrupt(f"{count:,} bytes came back where {STEP_BYTES:,} were written")
                found.update(step)
    finally:
        file.close()
    if found.digest() != expected.digest():
        raise Corrupt("other bytes came back than were written")
    return Throughput(length / max(writing, 1e-9), length / max(reading, 1e-9))


def _stamp(step: mmap.mmap, offset: int) -> None:
    """Every page is another, and says where it belongs: a disk that stores equal pages once, or puts them elsewhere."""
    for page in range(0, STEP_BYTES, _PAGE_BYTES):
        pack_into("<Q", step, page, offset + page)


async def try_drive(disk: Disk, own: Path, randomness: Randomness) -> None:
    """Make a real drive in there, write, read, delete, close, open and read again. Raises our errors when it fails."""
    directory = own / "trial"
    store = new_store_id(randomness)
    create_drive(disk, randomness, directory, store)
    fragments = [_fragment(number, length, randomness) for number, length in enumerate(_TRIAL_FRAGMENTS)]
    for is_new in (True, False):
        drive = await open_drive(directory, disk=disk, randomness=randomness, store=store, sizes=_TRIAL_SIZES)
        try:
            if is_new:
                await asyncio.gather(*(drive.put([fragment]) for fragment in fragments))
                await drive.delete([fragments[0].key])
            await _check_drive(drive, fragments[1:], gone=fragments[0].key)
        finally:
            await drive.close()


def _fragment(number: int, length: int, randomness: Randomness) -> Fragment:
    payload = randomness.bytes(length)
    leaves = b"".join(sha256(payload[at : at + LEAF_BYTES]).digest() for at in range(0, length, LEAF_BYTES))
    key = FragmentKey(BlockId(sha256(number.to_bytes(8, "big")).digest()), 0)
    return Fragment(key, b"doctor", leaves, b"", payload)


async def _check_drive(drive: Drive, fragments: list[Fragment], *, gone: FragmentKey) -> None:
    for fragment in fragments:
        part = await drive.get(fragment.key)
        if bytes(part.data) != fragment.payload:
            raise Corrupt("a fragment came back with other bytes")
    try:
        await drive.get(gone)
    except NotFound:
        pass
    else:
        raise Corrupt("a deleted fragment is still there")
    if {info.key for info in await drive.list()} != {fragment.key for fragment in fragments}:
        raise Corrupt("the drive lists other fragments than were written")


def failure(error: Exception) -> str:
    """In words, whichever kind it is."""
    if isinstance(error, HoldfastError):
        return str(error)
    return str(getattr(error, "strerror", None) or error)
