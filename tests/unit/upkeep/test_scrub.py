"""Scrub: every fragment is read, every bad one that matters is told to repair."""

import pytest

from holdfast.core.errors import Corrupt, HoldfastError, NotEnoughFragments
from holdfast.drives.interface import Fragment, FragmentInfo, FragmentKey
from holdfast.erasure import copies
from holdfast.upkeep import scrub
from holdfast.upkeep.progress import SAVE_SECONDS
from holdfast.upkeep.scrub import PERIOD_SECONDS, STEP_BYTES, Scrubber, ScrubRecord
from holdfast.upkeep.worker import State, settle
from tests.unit.upkeep.world import FrailDrive, World, open_tag


def scrubber(world: World, drive: FrailDrive) -> Scrubber:
    return Scrubber(drive, world, open_tag, world.clock)


async def pass_over(world: World, drive: FrailDrive) -> Scrubber:
    worker = scrubber(world, drive)
    await worker.request()
    await settle(worker)
    return worker


async def test_rot_is_told_to_repair_and_nothing_else_is() -> None:
    world = World(1)
    await world.create(copies(1), 3)
    [drive] = world.drives.values()
    bad = sorted(drive.held())[2]
    drive.rotten.add(bad)
    worker = await pass_over(world, drive)
    assert set(world.outbox) == {bytes(bad.block)}
    assert worker.status() == "last pass: 4 fragments checked, 1 bad"
    assert drive.rotten == {bad}


async def test_wrong_bytes_under_a_good_checksum_are_bad() -> None:
    world = World(1)
    await world.create(copies(1))
    [drive] = world.drives.values()
    key = min(drive.held())
    good = drive.held()[key]
    drive.held()[key] = Fragment(key, good.commitment, good.leaves, good.tag, bytes(len(good.payload)))
    await pass_over(world, drive)
    assert set(world.outbox) == {bytes(key.block)}


@pytest.mark.parametrize("error", [Corrupt, NotEnoughFragments])
async def test_rot_below_a_node_that_cannot_be_read_does_not_end_the_pass(
    error: type[HoldfastError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*_: object) -> None:
        raise error

    world = World(1)
    await world.create(copies(1), 3)
    [drive] = world.drives.values()
    drive.rotten |= set(drive.held())
    monkeypatch.setattr(world, "find", find)
    assert (await pass_over(world, drive)).status() == "last pass: 4 fragments checked, 4 bad"


async def test_rot_in_what_no_longer_lives_is_nobodys_business() -> None:
    world = World(1)
    world.release(await world.create(copies(1)))
    [drive] = world.drives.values()
    drive.rotten |= set(drive.held())
    worker = await pass_over(world, drive)
    assert not world.outbox
    assert "2 bad" in worker.status()


async def test_a_foreign_tag_is_counted() -> None:
    world = World(1)
    await world.create(copies(1))
    [drive] = world.drives.values()
    key = min(drive.held())
    good = drive.held()[key]
    drive.held()[key] = Fragment(key, good.commitment, good.leaves, b"whose?", good.payload)
    assert "1 unattributable" in (await pass_over(world, drive)).status()


async def test_a_pass_is_resumed_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrub, "STEP_FRAGMENTS", 2)
    world = World(1)
    await world.create(copies(1), 7)
    [drive] = world.drives.values()
    first = scrubber(world, drive)
    await first.request()
    await world.clock.advance(SAVE_SECONDS)
    assert await first.work() is State.BUSY
    second = scrubber(world, drive)
    await settle(second)
    record = ScrubRecord.decode(world.progress[second.name])
    assert (record.checked, record.passes) == (len(drive.held()), 1)


async def test_passes_are_a_period_apart() -> None:
    world = World(1)
    await world.create(copies(1))
    [drive] = world.drives.values()
    worker = await pass_over(world, drive)
    await world.clock.advance(PERIOD_SECONDS - 60)
    assert await worker.work() is State.IDLE
    await world.clock.advance(61)
    assert await worker.work() is State.BUSY


def test_a_step_is_bounded_by_bytes_and_never_empty() -> None:
    def info(length: int) -> FragmentInfo:
        return FragmentInfo(FragmentKey(b"", 0), length, b"")  # type: ignore[arg-type]

    assert len(scrub.step([info(STEP_BYTES // 2)] * 5)) == 2
    assert len(scrub.step([info(STEP_BYTES * 2)] * 5)) == 1
    assert len(scrub.step([info(1)] * 5)) == 5
    assert len(scrub.step([])) == 0
