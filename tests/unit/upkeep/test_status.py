"""What people are told."""

import pytest

from holdfast.drives.interface import FragmentKey
from holdfast.erasure import copies, erasure
from holdfast.testing.clock import FakeClock
from holdfast.upkeep import repair
from holdfast.upkeep.progress import Rate
from holdfast.upkeep.status import Health, about, health
from tests.unit.upkeep.crew import Crew
from tests.unit.upkeep.world import World

FINE = Health(0, None, 0, 0, 0, 0, (), grace_gave_way=False)


async def words(world: World) -> str:
    return (await health(world, world.layouts, copies(2))).words()


async def test_a_new_store_is_healthy() -> None:
    world = World(2)
    assert await words(world) == "healthy"
    await world.create(copies(2), 3)
    await Crew(world).round()
    found = await health(world, world.layouts, copies(2))
    assert found.is_healthy
    assert found.notes() == []


async def test_damage_is_counted_and_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repair, "BATCH_TASKS", 4)
    world = World(6)
    for _ in range(40):
        await world.create(erasure(2, 1))
    for content in world.rows:
        block = await anext(world.blocks(content))
        world.drives[world.layouts.all[0].drives(block.ref)[0]].lose(FragmentKey(block.ref.id, 0))
        await world.report_damage([block])
    assert await words(world) == "repair needed: 40 blocks, time unknown yet"
    repairer = Crew(world).repairer
    for _ in range(5):
        await world.clock.advance(10)  # what the throttle does; the steps themselves take no time here
        repairer._rate._add(0, 10)
        await repairer.work()
    assert await words(world) == "repair needed: 20 blocks, less than a minute"


async def test_what_waits_for_a_drive_has_no_end_in_sight() -> None:
    world = World(2)
    await world.create(copies(2))
    next(iter(world.drives.values())).silent = True
    for content in world.rows:
        await world.report_damage([block async for block in world.blocks(content)])
    await Crew(world).round()
    assert await words(world) == "repair needed: 2 blocks, waiting for a missing drive"


async def test_the_audit_says_what_is_under_protected() -> None:
    world = World(6)
    await world.create(copies(1))
    await world.create(copies(1))
    await world.create(erasure(4, 2))
    await Crew(world).round()
    found = await health(world, world.layouts, erasure(4, 2))
    assert found.is_healthy
    [note] = found.notes()
    assert note.startswith("2 objects or parts under-protected: kept as 1 copy")


async def test_too_few_drives_are_said() -> None:
    world = World(3)
    await world.create(erasure(2, 1))
    world.layouts.change(list(world.drives)[1:])
    crew = Crew(world)
    await crew.round()
    await crew.auditor.request()
    await crew.round()
    assert await words(world) == "too few drives: 2 blocks under-protected"


async def test_moving_and_a_lost_grace_are_said() -> None:
    world = World(3)
    content = await world.create(copies(2))
    world.release(content)
    for drive in world.drives.values():
        drive.inner._capacity = max(1, (await drive.usage()).live)
    world.layouts.change(list(world.drives)[1:])
    assert await words(world) == "moving data to its new drives"
    await Crew(world).collector.work()
    [note] = (await health(world, world.layouts, copies(2))).notes()
    assert note.startswith("space is short")


def test_several_troubles_worst_first() -> None:
    found = Health(12_345, 11_000.0, 0, 1, 1, 0, (), grace_gave_way=False)
    assert found.words() == (
        "1 block cannot be read now; repair needed: 12,345 blocks, about 3 hours; moving data to its new drives"
    )
    assert not found.is_healthy
    assert FINE.words() == "healthy"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "time unknown yet"),
        (3.0, "less than a minute"),
        (60.0, "about 1 minute"),
        (7_300.0, "about 2 hours"),
        (90_000.0, "about 1 day"),
    ],
)
def test_about(seconds: float | None, said: str) -> None:
    assert about(seconds) == said


async def test_a_rate_counts_rests_forgets_the_past_and_ignores_nights() -> None:
    clock = FakeClock()
    rate = Rate(clock)
    assert rate.per_second == 0.0

    async def step(count: float, rest: float) -> None:
        clock._move_to(clock._monotonic_ns + int(rest * 1e9))
        with rate.measured() as measured:
            clock._move_to(clock._monotonic_ns + 1_000_000_000)
            measured.count = count

    for _ in range(50):
        await step(6, 2.0)
    assert rate.per_second == pytest.approx(2.0, rel=0.05)
    await step(6, 100_000.0)
    assert rate.per_second == pytest.approx(2.0, rel=0.1)
    for _ in range(600):
        await step(60, 0.0)
    assert rate.per_second == pytest.approx(60.0, rel=0.1)
