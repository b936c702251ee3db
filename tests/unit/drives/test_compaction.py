"""Compaction gives space back and changes nothing that can be seen."""

import asyncio
import os
import shutil
import threading
from pathlib import Path

import pytest

from holdfast.core.errors import Full
from holdfast.core.limits import KIB, MIB
from holdfast.drives import compaction
from holdfast.drives.directory import DirectoryDrive, DriveSizes
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.drive_suite import assert_holds, key_of, list_all, make_fragment, refusal
from holdfast.testing.faulty_disk import Fault, FaultyDisk
from tests.unit.drives.opened import Opened


async def compact_all(drive: DirectoryDrive, share: float = 0.25) -> tuple[int, int]:
    """Steps until there is nothing to do: bytes moved and freed."""
    moved = freed = 0
    while (step := await drive.compact(budget_bytes=MIB, wasted_share=share)).segment is not None:
        moved += step.moved_bytes
        freed += step.freed_bytes
        assert step.unreadable == ()
    return moved, freed


async def closed_segment(opened: Opened, count: int) -> DirectoryDrive:
    drive = await opened.open()
    for first in range(0, count, 10):
        await drive.put([make_fragment(number, 20_000) for number in range(first, first + 10)])
    await opened.close()
    return await opened.open()


async def test_nothing_to_do(opened: Opened) -> None:
    drive = await closed_segment(opened, 20)
    assert await compact_all(drive) == (0, 0)


async def test_a_dead_segment_goes_without_a_move(opened: Opened) -> None:
    drive = await closed_segment(opened, 20)
    (segment,) = opened.segments()
    await drive.delete([key_of(number) for number in range(20)])
    moved, freed = await compact_all(drive)
    assert moved == 0
    assert freed > 400_000
    assert not segment.exists()
    # Nothing is left that the tombstones could shadow, so they are dead themselves.
    usage = await drive.usage()
    assert (usage.live, usage.fragments) == (0, 0)
    assert usage.dead > 0


async def test_a_segment_that_is_being_unlinked_goes_whole_when_nobody_waits_for_it_any_more(tmp_path: Path) -> None:
    disk, unlinked = FaultyDisk(OsDisk()), threading.Event()
    opened = Opened(tmp_path / "drive", disk=disk)
    drive = await closed_segment(opened, 20)
    await drive.delete([key_of(number) for number in range(20)])
    (segment,) = [path for path in opened.segments() if path.stat().st_size > 400_000 and b"hfF" in path.read_bytes()]
    fault = Fault("unlink", segment.name, error=0, until=unlinked)
    disk.faults.append(fault)
    with segment.open("rb") as somebody_reads:
        compacting = asyncio.create_task(drive.compact(budget_bytes=MIB))
        await asyncio.to_thread(fault.struck.wait)
        compacting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await compacting
        unlinked.set()
        await opened.close()
        assert os.fstat(somebody_reads.fileno()).st_size == 0


@pytest.mark.parametrize("seed", range(1, 5))
async def test_an_index_that_is_made_anew_while_a_segment_goes_does_not_name_it(tmp_path: Path, seed: int) -> None:
    """Of two copies of a record, where it was and where it was moved to, a rebuild may take either for the living one.
    It took the one that was about to be unlinked, and the fragment, moved and durable, was not found any more."""
    disk = FaultyDisk(OsDisk())
    opened = Opened(tmp_path / "drive", disk=disk, seed=seed)
    drive = await closed_segment(opened, 40)
    await drive.delete([key_of(number) for number in range(0, 40, 2)])
    go_on = threading.Event()
    fault = Fault("unlink", ".segment", error=0, until=go_on, times=1)
    disk.faults.append(fault)
    compacting = asyncio.ensure_future(drive.compact(budget_bytes=4 * MIB))
    await asyncio.to_thread(fault.struck.wait)
    shutil.rmtree(opened.path / "index")
    looking = asyncio.ensure_future(drive.has([key_of(1)]))
    await asyncio.wait((looking,), timeout=0.5)
    go_on.set()
    await compacting
    assert await looking == [True]
    for number in range(1, 40, 2):
        await assert_holds(drive, make_fragment(number, 20_000))
    await opened.close()


async def test_what_lives_moves(opened: Opened) -> None:
    drive = await closed_segment(opened, 40)
    (segment,) = opened.segments()
    await drive.delete([key_of(number) for number in range(0, 40, 2)])
    before = await list_all(drive)
    moved, freed = await compact_all(drive)
    assert 400_000 <= moved <= 450_000
    assert freed > 800_000
    assert not segment.exists()
    assert await list_all(drive) == before
    for number in range(1, 40, 2):
        await assert_holds(drive, make_fragment(number, 20_000))
    await opened.close()
    drive = await opened.open()
    assert await list_all(drive) == before


async def test_a_budget_bounds_a_step(opened: Opened) -> None:
    drive = await closed_segment(opened, 40)
    await drive.delete([key_of(number) for number in range(0, 40, 2)])
    step = await drive.compact(budget_bytes=100_000)
    assert 0 < step.moved_bytes <= 140_000
    assert step.freed_bytes == 0
    moved, freed = await compact_all(drive)
    assert step.moved_bytes + moved <= 450_000
    assert freed > 800_000


async def test_reads_go_on_meanwhile(opened: Opened) -> None:
    drive = await closed_segment(opened, 40)
    other = await opened.open()
    for number in range(40):
        await assert_holds(other, make_fragment(number, 20_000))
    await drive.delete([key_of(number) for number in range(0, 40, 2)])
    stop = asyncio.Event()

    async def read(handle: DirectoryDrive) -> None:
        while not stop.is_set():
            for number in range(1, 40, 2):
                await assert_holds(handle, make_fragment(number, 20_000))
                # A cached read never waits, so it lets nobody else run.
                await asyncio.sleep(0)

    readers = [asyncio.create_task(read(handle)) for handle in (drive, other, other)]
    await compact_all(drive)
    stop.set()
    await asyncio.gather(*readers)
    await read(other)


async def test_a_reader_that_lost_its_segment_looks_again(opened: Opened) -> None:
    drive = await closed_segment(opened, 10)
    other = await opened.open()
    await drive.delete([key_of(number) for number in range(1, 10)])
    row = other._index.lookup(key_of(0))
    await compact_all(drive)
    assert other._index.lookup(key_of(0)).segment != row.segment
    real = other._index.lookup
    stale = iter([row])
    other._index.lookup = lambda key: next(stale, None) or real(key)  # type: ignore[method-assign]
    await assert_holds(other, make_fragment(0, 20_000))
    assert next(stale, None) is None


async def test_two_at_once_do_not_meet(opened: Opened) -> None:
    drive = await closed_segment(opened, 40)
    other = await opened.open()
    await drive.delete([key_of(number) for number in range(0, 40, 2)])
    await asyncio.gather(compact_all(drive), compact_all(other))
    for number in range(1, 40, 2):
        await assert_holds(drive, make_fragment(number, 20_000))
        await assert_holds(other, make_fragment(number, 20_000))


async def test_many_small_segments_are_merged(opened: Opened) -> None:
    for number in range(compaction.SMALL_SEGMENTS_MAX_COUNT):
        drive = await opened.open()
        await drive.put([make_fragment(number)])
        await opened.close()
    drive = await opened.open()
    assert len(opened.segments()) == compaction.SMALL_SEGMENTS_MAX_COUNT
    await compact_all(drive)
    assert len(opened.segments()) <= compaction.SMALL_SEGMENTS_MAX_COUNT
    for number in range(compaction.SMALL_SEGMENTS_MAX_COUNT):
        await assert_holds(drive, make_fragment(number))


async def test_a_full_drive_whose_dead_lie_evenly_gives_their_space_back(tmp_path: Path) -> None:
    """No segment is mostly dead, so each has to be rewritten somewhere before it can go."""
    disk = FaultyDisk(OsDisk(), root=tmp_path / "drive")
    disk.quota_bytes = 16 * MIB
    sizes = DriveSizes(segment=MIB, allocation=256 * KIB, index_map=64 * KIB, reserve=64 * KIB)
    opened = Opened(tmp_path / "drive", disk=disk, sizes=sizes)
    drive = await opened.open()
    stored: list[int] = []

    async def fill() -> None:
        for number in range(10_000):
            await drive.put([make_fragment(number, 50 * KIB)])
            stored.append(number)

    await refusal(Full, fill())
    await opened.close()
    drive = await opened.open()
    await drive.delete([key_of(number) for number in stored[::4]])
    while (await drive.compact(budget_bytes=MIB, wasted_share=0.05)).segment is not None:
        pass
    for number in range(10_000, 10_000 + len(stored) // 6):
        await drive.put([make_fragment(number, 50 * KIB)])
    await assert_holds(drive, make_fragment(stored[1], 50 * KIB))
    await opened.close()


async def test_what_others_hold_open_is_given_back_and_they_read_on(opened: Opened) -> None:
    drive = await closed_segment(opened, 20)
    (segment,) = opened.segments()
    other = await opened.open()
    await assert_holds(other, make_fragment(15, 20_000))
    with segment.open("rb") as held:
        await drive.delete([key_of(number) for number in range(15)])
        await compact_all(drive)
        assert not segment.exists()
        assert held.read() == b""
    await assert_holds(other, make_fragment(15, 20_000))
