"""Repair: the outbox is drained of what can be mended, and keeps what cannot."""

from dataclasses import replace

from holdfast.cluster.heal import Healer
from holdfast.drives.interface import FragmentKey
from holdfast.erasure import copies, erasure
from holdfast.upkeep.interface import RepairTask
from holdfast.upkeep.repair import WAITING_READ_SECONDS, Repairer, RepairRecord
from holdfast.upkeep.worker import settle
from tests.unit.upkeep.world import World


def repairer(world: World) -> Repairer:
    return Repairer(world, Healer(world.attached(), world.layouts), world.clock)


async def damage(world: World, count: int) -> None:
    """Take the first fragment of as many blocks and tell repair of them."""
    for content in list(world.rows)[:count]:
        block = await anext(world.blocks(content))
        world.drives[world.layouts.all[0].drives(block.ref)[0]].lose(FragmentKey(block.ref.id, 0))
        await world.report_damage([block])


async def test_the_outbox_is_drained() -> None:
    world = World(6)
    for _ in range(11):
        await world.create(erasure(2, 1))
    await damage(world, 11)
    await settle(repairer(world))
    assert not world.outbox
    assert all(world.is_whole(ref) for content in world.rows.values() for ref in content.refs)


async def test_handoffs_go_home() -> None:
    world = World(6)
    content = await world.create(erasure(2, 1), 3, handoff=True)
    assert len(world.outbox) == 4
    await settle(repairer(world))
    assert all(world.is_whole(ref) for ref in world.rows[content].refs)


async def test_what_waits_for_a_drive_stays_and_does_not_block_the_rest() -> None:
    world = World(6)
    for _ in range(20):
        await world.create(erasure(2, 2))
    await damage(world, 20)
    silent = next(iter(world.drives.values()))
    silent.silent = True
    worker = repairer(world)
    await settle(worker)
    waiting = len(world.outbox)
    assert 0 < waiting < 20
    assert worker.status() == (
        f"{20 - waiting} blocks mended, {waiting} blocks wait for a drive, 0 of them cannot be read until then"
    )
    record = RepairRecord.decode(world.progress["repair"])
    assert (record.waiting, record.lost) == (waiting, 0)
    silent.silent = False
    await settle(worker)
    assert not world.outbox
    assert worker.status() == f"{waiting} blocks mended"


async def test_what_waits_is_read_seldom_and_read_all_the_same() -> None:
    """One home is silent; another one's fragment rots meanwhile, which the indexes do not tell."""
    world = World(4)
    content = await world.create(erasure(2, 1), 1)
    ref = world.rows[content].refs[0]
    homes = world.layouts.all[0].drives(ref)
    block = await anext(world.blocks(content))
    fragment = world.drives[homes[0]].lose(FragmentKey(ref.id, 0))
    world.drives[homes[0]].silent = True
    await world.drives[homes[3]].inner.put([fragment])  # its hand-off
    world.drives[homes[1]].rotten.add(FragmentKey(ref.id, 1))
    await world.report_damage([block])
    worker = repairer(world)
    await settle(worker)
    assert world.drives[homes[1]].rotten
    await world.clock.advance(WAITING_READ_SECONDS)
    await settle(worker)
    await settle(worker)
    assert not world.drives[homes[1]].rotten
    assert set(world.holders(ref)) == {0, 1, 2}


async def test_what_cannot_be_read_stays_and_is_counted() -> None:
    world = World(3)
    content = await world.create(copies(2))
    block = await anext(world.blocks(content))
    for index in range(2):
        world.drives[world.layouts.all[0].drives(block.ref)[index]].lose(FragmentKey(block.ref.id, index))
    await world.report_damage([block])
    worker = repairer(world)
    await settle(worker)
    assert len(world.outbox) == 1
    assert "1 of them cannot be read" in worker.status()


async def test_condemned_and_gone_are_dropped_untouched_and_unknown_waits() -> None:
    world = World(6)
    contents = [await world.create(erasure(2, 1)) for _ in range(3)]
    await damage(world, 3)
    before = world.good_indices()
    world.release(contents[0])
    del world.rows[contents[1]]
    world.beats.clear()
    world.trusted = False
    await settle(repairer(world))
    assert len(world.outbox) == 3
    world.trusted = True
    await settle(repairer(world))
    assert not world.outbox
    held = {block: indices for block, indices in world.good_indices().items() if indices != before[block]}
    assert len(held) == 1  # only the one that lives was repaired


async def test_a_block_reported_anew_while_it_was_repaired_is_looked_at_again() -> None:
    world = World(6)
    await world.create(erasure(2, 1))
    await damage(world, 1)
    [task] = await world.damaged()
    await world.report_damage([task.block])
    await world.repaired(RepairTask(task.key, task.token, task.block))
    assert len(world.outbox) == 1
    await settle(repairer(world))
    assert not world.outbox


async def test_a_block_that_its_content_gave_up_is_not_called_lost() -> None:
    """A content that is coded anew keeps its id, and its old blocks are collected. A row that somebody had written of
    one of them stayed for as long as the content, and `status` said all that time that a block was lost."""
    world = World(6)
    content, other = await world.create(erasure(2, 1)), await world.create(erasure(2, 1))
    given_up = await anext(world.blocks(other))
    lost = await anext(world.blocks(content))
    for block in (given_up, lost):
        for index, drives in world.holders(block.ref).items():
            for drive in drives:
                world.drives[drive].lose(FragmentKey(block.ref.id, index))
    stray = replace(given_up, tagged=replace(given_up.tagged, content=content))
    await world.report_damage([stray, lost])
    silent = world.drives[world.layouts.all[0].drives(given_up.ref)[0]]
    silent.silent = True
    worker = repairer(world)
    await settle(worker)
    assert len(world.outbox) == 2
    silent.silent = False
    await settle(worker)
    assert [task.block.ref for task in await world.damaged()] == [lost.ref]
    assert RepairRecord.decode(world.progress["repair"]).lost == 1
