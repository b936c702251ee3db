"""Disks that fail, fill up, rot or vanish while the drive runs: never wrong bytes, never a hang, never a false yes."""

import asyncio
import errno
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from holdfast.core.errors import Corrupt, Full, HoldfastError, NodeDown, NotFound
from holdfast.core.limits import KIB, LEAF_BYTES, MIB
from holdfast.core.ranges import ByteRange
from holdfast.drives.directory import DirectoryDrive, DriveSizes
from holdfast.drives.interface import Fragment
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.drive_suite import assert_holds, key_of, list_all, make_fragment, refusal
from holdfast.testing.faulty_disk import Fault, FaultyDisk, rot
from tests.unit.drives.opened import Opened

# When something that should take no time is taken for stuck.
ANSWER_SECONDS = 60


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    return FaultyDisk(OsDisk(), root=tmp_path / "drive")


@pytest.fixture
async def faulty(disk: FaultyDisk, tmp_path: Path) -> AsyncIterator[Opened]:
    sizes = DriveSizes(segment=256 * KIB, allocation=64 * KIB, index_map=64 * KIB, reserve=64 * KIB)
    opened = Opened(tmp_path / "drive", disk=disk, sizes=sizes)
    yield opened
    disk.faults.clear()
    await opened.close()


async def survives(opened: Opened, good: list[Fragment]) -> DirectoryDrive:
    """After a restart on a disk that works again, everything acknowledged is there and the drive takes writes."""
    await opened.close()
    drive = await opened.open()
    for fragment in good:
        await assert_holds(drive, fragment)
    await drive.put([make_fragment(500)])
    return drive


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_a_failed_write_or_sync_ends_writing_but_not_reading(
    faulty: Opened, disk: FaultyDisk, operation: str
) -> None:
    drive = await faulty.open()
    good = [make_fragment(number) for number in range(3)]
    await drive.put(good)
    disk.faults.append(Fault(operation, ".segment", times=1, partial=True))
    error = await refusal(NodeDown, drive.put([make_fragment(3)]))
    assert "Check the disk" in str(error)
    assert drive.failure is not None
    # The disk works again, but what it did with the pages of the failed sync is unknown: no second try.
    await refusal(NodeDown, drive.put([make_fragment(4)]))
    await refusal(NodeDown, drive.delete([key_of(0)]))
    for fragment in good:
        await assert_holds(drive, fragment)
    drive = await survives(faulty, good)
    try:
        await assert_holds(drive, make_fragment(3))
    except NotFound:
        pass


async def test_no_acknowledged_write_shares_a_segment_with_a_failed_sync(faulty: Opened, disk: FaultyDisk) -> None:
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    segment = faulty.segments()[0]
    disk.faults.append(Fault("sync", ".segment", times=1))
    await refusal(NodeDown, drive.put([make_fragment(1)]))
    size = segment.stat().st_size
    await refusal(NodeDown, drive.put([make_fragment(2)]))
    await drive.close()
    assert segment.stat().st_size == size, "an abandoned segment got a footer"


async def test_reads_that_fail_say_so(faulty: Opened, disk: FaultyDisk) -> None:
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    disk.faults += [Fault("read_into", ".segment"), Fault("read_cached_into", ".segment", error=errno.EAGAIN)]
    await refusal(NodeDown, drive.get(key_of(0)))
    disk.faults.clear()
    await assert_holds(drive, make_fragment(0))


async def test_a_dead_file_system_is_an_answer_like_any_other(faulty: Opened, disk: FaultyDisk) -> None:
    """One that shut itself down answers EIO also where nobody waits. That went past who reads blocks, and knows what to
    do about a drive that is down: a client was refused, although the other drives had the block."""
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    await assert_holds(drive, make_fragment(0))
    disk.faults.append(Fault("read_cached_into", ".segment", error=errno.EIO))
    with pytest.raises(BlockingIOError):
        drive.get_at_once(key_of(0))
    await assert_holds(drive, make_fragment(0))
    disk.faults.append(Fault("read_into", ".segment", error=errno.EIO))
    await refusal(NodeDown, drive.get(key_of(0)))


async def test_a_slow_disk_holds_up_nobody_else(faulty: Opened, disk: FaultyDisk) -> None:
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    sync = Fault("sync", ".segment", times=1, error=0, until=threading.Event())
    assert sync.until is not None
    disk.faults.append(sync)
    slow = asyncio.create_task(drive.put([make_fragment(1)]))
    try:
        assert await asyncio.to_thread(sync.struck.wait, ANSWER_SECONDS)
        await asyncio.wait_for(assert_holds(drive, make_fragment(0)), ANSWER_SECONDS)
        assert not slow.done()
    finally:
        sync.until.set()
    await slow


async def test_a_write_that_hangs_can_be_given_up(faulty: Opened, disk: FaultyDisk) -> None:
    """Who writes a block to several drives has its quorum and cancels the rest. Had it to wait for the disk that hangs,
    so had every client whose block was in that commit."""
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    go_on = threading.Event()
    fault = Fault("sync", ".segment", error=0, until=go_on, times=1)
    disk.faults.append(fault)
    try:
        begun = asyncio.ensure_future(drive.put([make_fragment(1)]))
        await asyncio.to_thread(fault.struck.wait)
        queued = asyncio.ensure_future(drive.put([make_fragment(2)]))
        await asyncio.sleep(0)
        begun.cancel()
        queued.cancel()
        ended, _ = await asyncio.wait((begun, queued), timeout=ANSWER_SECONDS)
        assert ended == {begun, queued}
    finally:
        go_on.set()
    await drive.put([make_fragment(3)])
    assert await drive.has([key_of(number) for number in range(4)]) == [True, True, False, True]
    await survives(faulty, [make_fragment(number) for number in (0, 1, 3)])


async def test_a_full_drive_reads_lists_and_deletes(faulty: Opened, disk: FaultyDisk) -> None:
    disk.quota_bytes = 2 * MIB
    drive = await faulty.open()
    stored: list[Fragment] = []

    async def fill() -> None:
        for number in range(1000):
            await drive.put([make_fragment(number, 30_000)])
            stored.append(make_fragment(number, 30_000))

    await refusal(Full, fill())
    assert len(stored) > 30
    assert (await drive.usage()).free < 30_000
    for fragment in stored:
        await assert_holds(drive, fragment)
    assert len(await list_all(drive, 100)) == len(stored)
    for first in range(0, len(stored) - 5, 20):
        await drive.delete([fragment.key for fragment in stored[first : min(first + 20, len(stored) - 5)]])
    await refusal(Full, drive.put([make_fragment(2000, 300_000)]))
    while (await drive.compact(budget_bytes=MIB)).segment is not None:
        pass
    # Space has come back, and the reserve is whole again.
    await drive.put([make_fragment(2000, 300_000)])
    assert (faulty.path / "reserve").stat().st_size == 32 * KIB
    for fragment in stored[-5:]:
        await assert_holds(drive, fragment)
    await survives(faulty, stored[-5:])


async def test_a_full_drive_opens_and_closes(faulty: Opened, disk: FaultyDisk) -> None:
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    await faulty.close()
    disk.quota_bytes = disk.used()
    drive = await faulty.open()
    await assert_holds(drive, make_fragment(0))
    await refusal(Full, drive.put([make_fragment(1)]))
    await drive.delete([key_of(0)])
    await refusal(NotFound, drive.get(key_of(0)))


async def test_a_drive_opens_when_not_even_its_state_can_be_written(faulty: Opened, disk: FaultyDisk) -> None:
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    await faulty.close()
    disk.faults.append(Fault("replace_file", "state", times=1, error=errno.ENOSPC))
    drive = await faulty.open()
    assert disk.faults[0].struck.is_set()
    await assert_holds(drive, make_fragment(0))


async def test_no_space_in_the_middle_of_a_write(faulty: Opened, disk: FaultyDisk) -> None:
    drive = await faulty.open()
    await drive.put([make_fragment(0)])
    # A file system that reserves nothing: the write itself meets the end.
    disk.faults.append(Fault("write", ".segment", times=1, error=errno.ENOSPC, partial=True))
    await refusal(Full, drive.put([make_fragment(n) for n in range(1, 6)]))
    await drive.put([make_fragment(9)])
    for number in (0, 9):
        await assert_holds(drive, make_fragment(number))
    assert await drive.has([key_of(n) for n in range(1, 6)]) == [False] * 5
    shutil.rmtree(faulty.path / "index")
    drive = await survives(faulty, [make_fragment(0), make_fragment(9)])
    assert await drive.has([key_of(n) for n in range(1, 6)]) == [False] * 5


async def test_every_rotten_byte_of_a_record_is_noticed(opened: Opened) -> None:
    drive = await opened.open()
    fragment = make_fragment(0, 700)
    await drive.put([fragment, make_fragment(1)])
    (segment,) = opened.segments()
    whole = segment.read_bytes()
    start = whole.index(b"hfR\x01")
    end = whole.index(bytes(fragment.payload)) + 700
    for offset in range(start, end, 7):
        rot(segment, offset)
        await refusal(Corrupt, drive.get(fragment.key))
        await assert_holds(drive, make_fragment(1))
        rot(segment, offset)
    await assert_holds(drive, fragment)


async def test_rot_in_another_leaf_does_not_hurt_a_range(opened: Opened) -> None:
    drive = await opened.open()
    fragment = make_fragment(0, 8 * LEAF_BYTES)
    await drive.put([fragment])
    (segment,) = opened.segments()
    payload = segment.read_bytes().index(bytes(fragment.payload))
    rot(segment, payload + 5 * LEAF_BYTES + 3)
    part = await drive.get(fragment.key, ByteRange(0, LEAF_BYTES))
    assert bytes(part.data) == fragment.payload[:LEAF_BYTES]
    part = await drive.get(fragment.key, ByteRange(6 * LEAF_BYTES, 8 * LEAF_BYTES))
    assert bytes(part.data) == fragment.payload[6 * LEAF_BYTES :]
    await refusal(Corrupt, drive.get(fragment.key, ByteRange(5 * LEAF_BYTES, 5 * LEAF_BYTES + 1)))
    await refusal(Corrupt, drive.get(fragment.key))


async def test_rot_hides_no_later_record(opened: Opened) -> None:
    drive = await opened.open()
    for number in range(5):
        await drive.put([make_fragment(number)])
    await opened.close()
    (segment,) = opened.segments()
    data = segment.read_bytes()
    # The header of the third record, and the footer, so that the segment has to be scanned.
    rot(segment, data.index(key_of(2).block))
    rot(segment, data.index(b"hfF\x01") + 60)
    shutil.rmtree(opened.path / "index")
    drive = await opened.open()
    assert await drive.has([key_of(n) for n in range(5)]) == [True, True, False, True, True]
    for number in (0, 1, 3, 4):
        await assert_holds(drive, make_fragment(number))


async def test_compaction_leaves_what_it_cannot_read(opened: Opened) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(number, 20_000) for number in range(10)])
    await opened.close()
    (segment,) = opened.segments()
    rot(segment, segment.read_bytes().index(bytes(make_fragment(7, 20_000).payload)) + 5)
    drive = await opened.open()
    await drive.delete([key_of(number) for number in range(5)])
    result = await drive.compact(budget_bytes=MIB)
    assert result.unreadable == (key_of(7),)
    assert result.freed_bytes == 0
    assert segment.exists()
    await refusal(Corrupt, drive.get(key_of(7)))
    for number in (5, 6, 8, 9):
        await assert_holds(drive, make_fragment(number, 20_000))
    # Repaired, nothing holds the segment any more.
    await drive.put([make_fragment(7, 20_000)])
    await opened.close()
    drive = await opened.open()
    assert (await drive.compact(budget_bytes=MIB)).freed_bytes > 0
    assert not segment.exists()
    await assert_holds(drive, make_fragment(7, 20_000))


def _delete(path: Path) -> None:
    path.unlink()


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _scribble(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\x5a" * path.stat().st_size)


# Not among them: scribbling over the index while it is mapped. LMDB has no checksums and may crash the process.
@pytest.mark.parametrize(
    ("damage", "what"),
    [(_scribble, "segments/*")]
    + [(damage, what) for damage in (_delete, _empty) for what in ("segments/*", "index/*/data.mdb", "**/*")],
)
async def test_files_destroyed_underneath(opened: Opened, damage: Callable[[Path], None], what: str) -> None:
    drive = await opened.open()
    fragments = [make_fragment(number) for number in range(20)]
    await drive.put(fragments)
    for path in opened.path.glob(what):
        if path.is_file():
            damage(path)

    async def use() -> None:
        for fragment in fragments:
            try:
                await assert_holds(drive, fragment)
            except (NotFound, Corrupt, NodeDown):
                pass
        for call in (drive.put([make_fragment(99)]), drive.delete([key_of(0)]), drive.usage(), drive.list()):
            try:
                await call
            except HoldfastError:
                pass

    await asyncio.wait_for(use(), ANSWER_SECONDS)
    await asyncio.wait_for(opened.close(), ANSWER_SECONDS)


async def test_a_write_into_an_unlinked_segment_is_not_acknowledged(opened: Opened) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(0)])
    opened.segments()[0].unlink()
    await refusal(NodeDown, drive.put([make_fragment(1)]))


async def test_a_drive_that_vanished_takes_no_writes(opened: Opened, tmp_path: Path) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(0)])
    opened.path.rename(tmp_path / "elsewhere")
    opened.path.mkdir()
    await refusal(NodeDown, drive.put([make_fragment(1)]))
    await refusal(NodeDown, drive.has([key_of(0)]))
    assert list(opened.path.iterdir()) == []


async def test_a_drive_in_the_place_of_another_takes_no_writes_for_it(opened: Opened, tmp_path: Path) -> None:
    """Two disks were swapped under a process that had not written yet. What it wrote then lay in segments that name the
    other drive: acknowledged, and not looked at by the next rebuild of the index."""
    other = Opened(tmp_path / "other", seed=2)
    for one, number in ((opened, 0), (other, 1)):
        await (await one.open()).put([make_fragment(number)])
        await one.close()
    drive = await opened.open()
    assert await drive.has([key_of(0)]) == [True]
    opened.path.rename(tmp_path / "between")
    other.path.rename(opened.path)
    before = opened.segments()
    await refusal(NodeDown, drive.put([make_fragment(2)]))
    await refusal(NodeDown, drive.has([key_of(1)]))
    assert opened.segments() == before
    await opened.close()
    await assert_holds(await opened.open(), make_fragment(1))


async def test_a_drive_in_the_place_of_another_is_used_though_that_one_is_not_closed_yet(
    opened: Opened, tmp_path: Path
) -> None:
    other = Opened(tmp_path / "other", seed=2)
    for one, number in ((opened, 0), (other, 1)):
        await (await one.open()).put([make_fragment(number)])
        await one.close()
    before = await opened.open()
    opened.path.rename(tmp_path / "away")
    other.path.rename(opened.path)
    drive = await opened.open()
    await drive.put([make_fragment(2)])
    for number in (1, 2):
        await assert_holds(drive, make_fragment(number))
    await refusal(NodeDown, before.has([key_of(0)]))


async def test_a_deleted_index_is_made_again(opened: Opened) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(number) for number in range(5)])
    await drive.delete([key_of(1)])
    shutil.rmtree(opened.path / "index")
    assert await drive.has([key_of(n) for n in range(5)]) == [True, False, True, True, True]
    await drive.put([make_fragment(1)])
    await assert_holds(drive, make_fragment(1))
