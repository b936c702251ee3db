"""The sweep: garbage goes after two looks, and nothing else ever does."""

from dataclasses import replace
from itertools import pairwise

import pytest

from holdfast.core.ids import Buffer, ContentId
from holdfast.drives.interface import Fragment
from holdfast.erasure import copies, erasure
from holdfast.upkeep import sweep
from holdfast.upkeep.interface import SWEEP_GAP_SECONDS, Liveness, TaggedContent
from holdfast.upkeep.sweep import PERIOD_SECONDS, Sweeper, SweepRecord, aged, due, ripe
from holdfast.upkeep.worker import State, settle
from tests.unit.upkeep.world import FrailDrive, World, open_tag


def sweeper(world: World, drive: FrailDrive | None = None) -> Sweeper:
    return Sweeper(drive or next(iter(world.drives.values())), world, open_tag, world.clock)


async def garbage(world: World) -> ContentId:
    """Fragments of an upload whose process died and whose session was ended."""
    content = await world.write(copies(3), 2)
    world.in_flight.clear()
    del world.beats[world.session]
    world.session = world.new_session()
    return content


async def test_garbage_goes_at_the_second_look_and_not_at_the_first() -> None:
    world = World(3)
    content = await garbage(world)
    workers = [sweeper(world, drive) for drive in world.drives.values()]
    for worker in workers:
        await settle(worker)
    assert len(world.fragments_of(content)) == 9
    await world.clock.advance(SWEEP_GAP_SECONDS - 1)
    for worker in workers:
        await settle(worker)
    assert len(world.fragments_of(content)) == 9
    await world.clock.advance(2)
    for worker in workers:
        await settle(worker)
    assert world.fragments_of(content) == []


async def test_an_upload_in_flight_is_never_garbage() -> None:
    world = World(3)
    content = await world.write(copies(3))
    worker = sweeper(world)
    for _ in range(4):
        await settle(worker)
        await world.clock.advance(PERIOD_SECONDS)
    assert len(world.fragments_of(content)) == 6


async def test_condemned_is_the_collectors_and_unknown_is_nobodys() -> None:
    world = World(3)
    condemned, gone = await world.create(copies(3)), await garbage(world)
    world.release(condemned)
    worker = sweeper(world)
    await settle(worker)
    world.trusted = False
    for _ in range(4):
        await world.clock.advance(PERIOD_SECONDS)
        await settle(worker)
    assert len(world.fragments_of(condemned)) == 6
    assert len(world.fragments_of(gone)) == 9


async def test_doubt_between_the_looks_starts_the_gap_anew() -> None:
    world = World(3)
    content = await garbage(world)
    worker = sweeper(world)
    await settle(worker)
    await world.clock.advance(SWEEP_GAP_SECONDS + 1)
    world.trusted = False
    await settle(worker)
    world.trusted = True
    await worker.request()
    await settle(worker)
    assert len(world.fragments_of(content)) == 9
    await world.clock.advance(SWEEP_GAP_SECONDS + 1)
    await settle(worker)
    assert len(world.fragments_of(content)) == 6  # this one drive's are gone


async def test_a_drive_back_from_the_dead_resurrects_nothing() -> None:
    world = World(6)
    content = await world.create(erasure(2, 2), 3)
    drive = next(d for d in world.drives.values() if d.held())
    count = len(drive.held())
    drive.silent = True
    del world.rows[content]  # released, collected and forgotten while it was away
    del world.beats[world.session]
    drive.silent = False
    worker = sweeper(world, drive)
    await settle(worker)
    await world.clock.advance(SWEEP_GAP_SECONDS)
    await settle(worker)
    assert not drive.held()
    assert worker.status() == f"{count} fragments seen, {count} deleted"


async def test_a_foreign_tag_is_counted_and_left_alone() -> None:
    world = World(3)
    await world.create(copies(3))
    drive = next(iter(world.drives.values()))
    for key, fragment in drive.held().items():
        drive.held()[key] = Fragment(key, fragment.commitment, fragment.leaves, b"whose?", fragment.payload)
    worker = sweeper(world, drive)
    for _ in range(3):
        await settle(worker)
        await world.clock.advance(PERIOD_SECONDS)
    assert len(drive.held()) == 2
    assert worker.counts.unattributable == 2
    assert "2 unattributable" in worker.status()


async def test_a_tag_of_another_block_makes_no_garbage_of_a_living_fragment() -> None:
    world = World(1)
    await world.create(copies(1))
    gone = await world.create(copies(1))
    del world.rows[gone]
    tags = {}
    [drive] = world.drives.values()
    for key, fragment in drive.held().items():
        tags[fragment.tag] = key.block
    dead = next(tag for tag in tags if open_tag(tag).content == gone)
    for key, fragment in list(drive.held().items()):
        drive.held()[key] = Fragment(key, fragment.commitment, fragment.leaves, dead, fragment.payload)
    world.beats.clear()

    def bound(tag: Buffer) -> TaggedContent:
        return replace(open_tag(tag), block=tags[bytes(tag)])

    worker = Sweeper(drive, world, bound, world.clock)
    for _ in range(3):
        await settle(worker)
        await world.clock.advance(PERIOD_SECONDS)
    assert len(drive.held()) == 3
    assert worker.counts.unattributable == 3


async def test_neither_a_wrong_wall_clock_nor_time_without_upkeep_counts() -> None:
    world = World(3)
    content = await garbage(world)
    await settle(sweeper(world))
    world.clock.jump(1e9)
    again = sweeper(world)
    await again.request()
    await settle(again)
    assert len(world.fragments_of(content)) == 9


async def test_a_new_process_goes_on_with_the_suspects_of_the_last() -> None:
    world = World(3)
    content = await garbage(world)
    first = sweeper(world)
    await settle(first)
    await world.clock.advance(SWEEP_GAP_SECONDS / 2)
    assert await first.work() is State.IDLE  # keeps the time that it saw pass
    second = sweeper(world)
    assert await second.work() is State.IDLE
    await world.clock.advance(SWEEP_GAP_SECONDS / 2 + 1)
    await settle(second)
    assert len(world.fragments_of(content)) == 6


async def test_suspects_are_bounded_and_the_rest_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SUSPECTS_MAX_COUNT", 1)
    monkeypatch.setattr(sweep, "PAGE_FRAGMENTS", 2)
    world = World(1)
    for _ in range(3):
        await world.write(copies(1))
    world.in_flight.clear()
    world.beats.clear()
    worker = sweeper(world)
    left = []
    for _ in range(8):
        await settle(worker)
        left.append(len(next(iter(world.drives.values())).held()))
        await world.clock.advance(PERIOD_SECONDS)
    assert left[0] == 6
    assert left[-1] == 0
    assert all(before - after <= 2 for before, after in pairwise(left))


def test_due_and_ripe_and_aged() -> None:
    record = SweepRecord(rested=0.0)
    assert not due(record)
    aged(record, PERIOD_SECONDS)
    assert due(record)
    record = SweepRecord(rested=0.0, suspects={b"x" * 16: 0.0})
    aged(record, SWEEP_GAP_SECONDS - 1)
    assert not due(record)
    assert ripe(record) == frozenset()
    aged(record, 1)
    assert due(record)
    assert ripe(record) == {b"x" * 16}
    assert Liveness.GONE.value == "gone"
