"""Collection: what is condemned goes after its grace, what lives never does."""

from collections.abc import AsyncIterator, Sequence

import pytest

from holdfast.core.errors import Corrupt, Unavailable
from holdfast.core.ids import ContentId
from holdfast.core.limits import GIB, MIB
from holdfast.drives.interface import DriveUsage, FragmentKey
from holdfast.erasure import copies, erasure
from holdfast.upkeep import collect
from holdfast.upkeep.collect import (
    ASIDE_SECONDS,
    GRACE_DEFAULT_SECONDS,
    UNREAD_KEPT_SECONDS,
    Collector,
    CollectRecord,
    horizon,
    space_is_short,
)
from holdfast.upkeep.interface import StoredBlock
from holdfast.upkeep.progress import load
from holdfast.upkeep.worker import State, settle
from tests.unit.upkeep.world import FrailDrive, World


def collector(world: World) -> Collector:
    return Collector(world, world.attached(), world.layouts, world.clock)


def holder_of_root(world: World, content: ContentId) -> FrailDrive:
    """Of a content of one copy."""
    key = FragmentKey(world.rows[content].refs[-1].id, 0)
    [holder] = [drive for drive in world.drives.values() if key in drive.held()]
    return holder


async def test_nothing_goes_before_its_grace_and_everything_after() -> None:
    world = World(6)
    kept = await world.create(erasure(2, 2), 2)
    doomed = await world.create(erasure(2, 1), 3)
    world.release(doomed)
    await settle(collector(world))
    assert len(world.fragments_of(doomed)) == 4 * 3
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    worker = collector(world)
    await settle(worker)
    assert world.fragments_of(doomed) == []
    assert doomed not in world.rows
    assert len(world.fragments_of(kept)) == 3 * 4
    assert worker.status() == "1 contents collected"


async def test_when_space_is_short_the_grace_gives_way() -> None:
    world = World(3)
    doomed = await world.create(copies(3))
    world.release(doomed)
    for drive in world.drives.values():
        drive.inner._capacity = (await drive.usage()).live + 1
    worker = collector(world)
    unhurried = worker.tranquility
    await settle(worker)
    assert worker.grace_gave_way
    assert worker.tranquility < unhurried
    assert "space is short" in worker.status()
    assert world.fragments_of(doomed) == []


async def test_a_content_that_lives_again_is_left_alone() -> None:
    """A metadata restore between the listing of what is condemned and the deletion."""
    world = World(3)
    content = await world.create(copies(3), 2)
    world.release(content)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)

    walked = world.blocks

    async def restored(name: ContentId) -> AsyncIterator[StoredBlock]:
        async for block in walked(name):
            world.rows[name].condemned_ns = None
            yield block

    world.blocks = restored  # type: ignore[assignment,method-assign]
    worker = collector(world)
    await settle(worker)
    assert len(world.fragments_of(content)) == 9
    assert content in world.rows
    assert worker.status() == "0 contents collected"


async def test_nothing_goes_while_the_rows_cannot_be_trusted() -> None:
    world = World(3)
    content = await world.create(copies(3))
    world.release(content)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    world.trusted = False
    await settle(collector(world))
    assert len(world.fragments_of(content)) == 6


async def test_a_silent_drive_does_not_hold_the_others_up() -> None:
    world = World(3)
    content = await world.create(copies(3))
    world.release(content)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    next(iter(world.drives.values())).silent = True
    await settle(collector(world))
    assert content not in world.rows
    assert len(world.fragments_of(content)) == 2  # the sweep's


async def test_a_large_content_takes_several_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collect, "BATCH_BLOCKS", 2)
    world = World(3)
    content = await world.create(copies(2), 5)
    world.release(content)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    worker = collector(world)
    assert await worker.work() is State.BUSY
    assert len(world.fragments_of(content)) == 2 * (6 - 2)
    assert content in world.rows
    await settle(worker)
    assert content not in world.rows


async def test_an_unreadable_root_does_not_keep_the_row_for_ever() -> None:
    """What hangs below it is GONE by its tag from then on: the sweep's."""
    world = World(3)
    content = await world.create(copies(2), 2)
    root = world.rows[content].refs[-1]
    for drive in world.drives.values():
        for key in [key for key in drive.held() if key.block == root.id]:
            drive.lose(key)
    world.release(content)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    await settle(collector(world))
    assert content not in world.rows
    assert len(world.fragments_of(content)) == 4


@pytest.mark.parametrize("pulled", [False, True], ids=["silent", "pulled"])
async def test_a_drive_that_stays_away_does_not_keep_the_row_for_ever(*, pulled: bool) -> None:
    world = World(3)
    content = await world.create(copies(1), 5)
    holder = holder_of_root(world, content)
    world.release(content)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    holder.silent = True
    drives = world.attached()
    if pulled:
        del drives[holder.id]
    worker = Collector(world, drives, world.layouts, world.clock)
    await settle(worker)
    assert content in world.rows
    assert worker.status() == "0 contents collected, 1 cannot be yet"
    await world.clock.advance(UNREAD_KEPT_SECONDS)
    await settle(worker)
    assert content not in world.rows
    assert worker.status() == "1 contents collected"


async def test_what_a_silent_drive_lists_is_collected_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    world = World(3)
    content, other = await world.create(copies(1), 5), await world.create(copies(3))
    holder = holder_of_root(world, content)
    world.release(content)
    world.release(other)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    holder.silent = True
    worker = collector(world)
    for _ in range(3):
        await settle(worker)
    assert other not in world.rows
    assert content in world.rows
    assert len([record for record in caplog.records if content.hex() in record.message]) == 1
    holder.silent = False
    await settle(worker)
    assert content in world.rows, "it is not looked at all the time"
    await world.clock.advance(ASIDE_SECONDS)
    await settle(worker)
    assert content not in world.rows
    assert world.fragments_of(content) == []
    assert worker.status() == "2 contents collected"


async def test_a_drive_that_does_not_answer_is_asked_once_in_a_walk(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(1)
    [drive] = world.drives.values()
    for _ in range(5):
        world.release(await world.create(copies(1)))
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    drive.silent = True
    asked = 0
    has = drive.has

    async def counted(keys: Sequence[FragmentKey]) -> list[bool]:
        nonlocal asked
        asked += 1
        return await has(keys)

    monkeypatch.setattr(drive, "has", counted)
    worker = collector(world)
    monkeypatch.setattr(collect, "delete_everywhere", nothing)
    await settle(worker)
    assert worker.status() == "0 contents collected, 5 cannot be yet"
    assert asked == 1


async def nothing(*_: object) -> None:
    pass


async def test_a_row_that_cannot_be_walked_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing that was condemned behind it was collected any more."""
    world = World(3)
    bad, good = await world.create(copies(3)), await world.create(copies(3))
    world.release(bad)
    await world.clock.advance(1)
    world.release(good)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    walked = world.blocks

    async def rotten(name: ContentId) -> AsyncIterator[StoredBlock]:
        if name == bad:
            raise Corrupt("the walk root does not open")
        async for block in walked(name):
            yield block

    monkeypatch.setattr(world, "blocks", rotten)
    worker = collector(world)
    for _ in range(3):
        await settle(worker)
    assert set(world.rows) == {bad}
    assert len(world.fragments_of(bad)) == 6
    assert worker.status() == "1 contents collected, 1 cannot be yet"
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        f"content {bad.hex()} was deleted and cannot be collected yet: the walk root does not open"
    ]
    assert (await load(world, Collector.name, CollectRecord)).aside == 1
    await world.clock.advance(2 * UNREAD_KEPT_SECONDS)
    await settle(worker)
    assert bad in world.rows
    monkeypatch.undo()
    await world.clock.advance(ASIDE_SECONDS)
    for _ in range(2):
        await settle(worker)
    assert not world.rows
    assert world.fragments_of(bad) == []
    assert (await load(world, Collector.name, CollectRecord)).aside == 0


async def test_a_row_that_cannot_be_forgotten_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(3)
    bad, good = await world.create(copies(3)), await world.create(copies(3))
    world.release(bad)
    world.release(good)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    forget = world.forget

    async def stuck(name: ContentId) -> None:
        if name == bad:
            raise Unavailable("what it is made of keeps changing")
        await forget(name)

    monkeypatch.setattr(world, "forget", stuck)
    worker = collector(world)
    await settle(worker)
    assert set(world.rows) == {bad}
    monkeypatch.undo()
    await world.clock.advance(ASIDE_SECONDS)
    await settle(worker)
    assert not world.rows


async def test_what_another_process_collected_is_not_counted_any_more() -> None:
    world = World(3)
    content = await world.create(copies(1))
    world.release(content)
    await world.clock.advance(GRACE_DEFAULT_SECONDS + 1)
    holder_of_root(world, content).silent = True
    worker = collector(world)
    await settle(worker)
    assert "cannot be yet" in worker.status()
    await world.forget(content)
    await world.clock.advance(ASIDE_SECONDS)
    await settle(worker)
    assert worker.status() == "0 contents collected"


def test_the_horizon() -> None:
    assert horizon(10_000_000_000, 4.0, short=False) == 6_000_000_000
    assert horizon(10_000_000_000, 4.0, short=True) > 10_000_000_000


def test_one_short_drive_is_enough() -> None:
    roomy, tight = DriveUsage(100 * GIB, 50 * GIB, 50 * GIB, 0, 1), DriveUsage(100 * GIB, 4 * GIB, 96 * GIB, 0, 1)
    assert space_is_short([roomy, tight])
    assert not space_is_short([roomy])
    assert not space_is_short([])


def test_a_small_drive_is_short_as_soon_as_it_refuses_writes() -> None:
    """It leaves room free that is more than the share: who waited for that much to go waited for the grace's end."""
    assert space_is_short([DriveUsage(128 * MIB, 40 * MIB, 88 * MIB, 0, 1)])
    assert not space_is_short([DriveUsage(GIB, 100 * MIB, 900 * MIB, 0, 1)])
