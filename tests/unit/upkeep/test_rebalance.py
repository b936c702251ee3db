"""Rebalance: from layout to layout, whatever the change, without ever having less than before."""

import pytest

from holdfast.cluster.heal import Healer
from holdfast.core.ids import DriveId
from holdfast.erasure import copies, erasure
from holdfast.upkeep import rebalance
from holdfast.upkeep.rebalance import Rebalancer
from holdfast.upkeep.worker import State, settle
from tests.unit.upkeep.crew import Crew
from tests.unit.upkeep.world import World


def rebalancer(world: World) -> Rebalancer:
    return Rebalancer(world, world.layouts, Healer(world.attached(), world.layouts), world.clock)


def all_whole(world: World) -> bool:
    return all(world.is_whole(ref) for content in world.rows.values() for ref in content.refs)


async def filled(drives: int) -> World:
    world = World(drives)
    for code in (copies(2), erasure(2, 1), erasure(2, 2)):
        for _ in range(4):
            await world.create(code, 2)
    return world


async def test_an_added_drive_gets_its_share_and_the_old_layout_retires() -> None:
    world = await filled(5)
    drive = world.add_drive()
    world.layouts.change([*world.layouts.all[0].active, drive.id])
    await settle(rebalancer(world))
    assert all_whole(world)
    assert drive.held()
    assert [layout.version for layout in world.layouts.all] == [2]
    assert {content.layout_version for content in world.rows.values()} == {2}


async def test_a_drained_drive_ends_empty() -> None:
    world = await filled(6)
    gone = next(iter(world.drives))
    world.layouts.change([drive for drive in world.drives if drive != gone])
    await settle(rebalancer(world))
    assert not world.drives[gone].held()
    assert all_whole(world)


async def test_a_lost_drive_is_rebuilt_onto_its_replacement() -> None:
    world = await filled(6)
    lost = next(iter(world.drives))
    del world.drives[lost]
    new = world.add_drive()
    world.layouts.change([*(drive for drive in world.layouts.all[0].active if drive != lost), new.id])
    await settle(rebalancer(world))
    assert all_whole(world)
    assert len(world.layouts.all) == 1


async def test_two_changes_at_once_end_at_the_newest() -> None:
    world = await filled(6)
    first, second, *rest = world.drives
    world.layouts.change([second, *rest])
    worker = rebalancer(world)
    await worker.work()
    world.layouts.change([*rest, world.add_drive().id])
    await settle(rebalancer(world))
    assert all_whole(world)
    assert not world.drives[first].held()
    assert not world.drives[second].held()
    assert [layout.version for layout in world.layouts.all] == [3]


async def test_the_old_layout_stays_while_something_waits_for_a_drive() -> None:
    world = await filled(6)
    new = world.add_drive()
    world.layouts.change([*world.layouts.all[0].active, new.id])
    new.silent = True
    worker = rebalancer(world)
    await settle(worker)
    assert len(world.layouts.all) == 2
    assert "wait for a drive" in worker.status()
    new.silent = False
    await settle(worker)
    assert len(world.layouts.all) == 1
    assert worker.status().startswith("layout 2 reached: ")
    assert all_whole(world)


async def test_a_drain_to_too_few_drives_ends_and_loses_no_fragment() -> None:
    world = World(3)
    content = await world.create(erasure(2, 1), 2)
    gone = next(iter(world.drives))
    world.layouts.change([drive for drive in world.drives if drive != gone])
    await settle(rebalancer(world))
    assert not world.drives[gone].held()
    assert all(set(world.holders(ref)) == {0, 1, 2} for ref in world.rows[content].refs)
    assert len(world.layouts.all) == 1


async def test_what_a_late_writer_puts_behind_the_walk_is_found_before_the_layout_retires(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rebalance, "BATCH_BLOCKS", 2)
    world = await filled(5)
    old = world.layouts.all[0]
    world.layouts.change([*old.active, world.add_drive().id])
    worker = rebalancer(world)
    for _ in range(100):
        if await worker.work() is State.IDLE:
            break
        if worker._record is not None and worker._record.after:
            # A writer that still follows the old layout publishes something with the lowest of all ids.
            newest, world.layouts.all = world.layouts.all, [old]
            world.session = type(world.session)(bytes(8))
            world.beats[world.session] = 0
            if min(world.rows)[:8] != bytes(8):
                await world.create(erasure(2, 2))
            world.layouts.all = newest
    assert len(world.layouts.all) == 1
    assert all_whole(world)


async def test_what_is_published_by_an_old_layout_behind_the_last_pass_is_moved_as_well() -> None:
    """A long upload that ended in that moment stayed where the old layout had placed it, and a drive that was being
    drained was never empty, however often it was drained again."""
    world = await filled(6)
    late = await world.write(erasure(2, 1), 2)
    gone = next(iter(world.drives))
    world.layouts.change([drive for drive in world.drives if drive != gone])
    worker = rebalancer(world)
    while worker._record is None or worker._record.settled_version < world.layouts.all[0].version:
        await worker.work()
    assert len(world.layouts.all) == 2
    world.publish(late)
    await settle(worker)
    assert [layout.version for layout in world.layouts.all] == [2]
    assert world.rows[late].layout_version == 2
    assert not world.drives[gone].held()
    assert all_whole(world)


async def test_a_walk_that_fails_begins_again_and_ends() -> None:
    world = await filled(5)
    world.layouts.change([*world.layouts.all[0].active, world.add_drive().id])
    drives: list[DriveId] = list(world.drives)
    worker = rebalancer(world)
    world.drives[drives[0]].silent = True
    await settle(worker)
    assert not all_whole(world)
    world.drives[drives[0]].silent = False
    await settle(worker)
    # What was rebuilt elsewhere while the drive was away lies on it still: the audit finds that.
    await Crew(world).rest(2)
    assert all_whole(world)
