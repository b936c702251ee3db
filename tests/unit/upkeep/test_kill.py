"""Each chore, killed before or after each thing that it does to the world, once at every place; then done again."""

from collections.abc import Awaitable, Callable

import pytest

from holdfast.drives.interface import FragmentKey
from holdfast.erasure import copies, erasure
from tests.unit.upkeep.crew import Crew
from tests.unit.upkeep.world import Killed, World

STEPS_MAX_COUNT = 2000


async def _collection(world: World) -> None:
    for content in list(world.rows)[::2]:
        world.release(content)
    await world.clock.advance(7200)


async def _repair(world: World) -> None:
    drive = next(iter(world.drives.values()))
    world.drives[list(world.drives)[1]].rotten |= set(list(world.drives[list(world.drives)[1]].held())[:2])
    for key in list(drive.held())[:3]:
        drive.lose(key)
    for content in world.rows:
        await world.report_damage([block async for block in world.blocks(content)])


async def _handoffs(world: World) -> None:
    for _ in range(2):
        await world.create(erasure(2, 1), handoff=True)


async def _rebalance(world: World) -> None:
    active = list(world.layouts.all[0].active)
    world.layouts.change([*active[1:], world.add_drive().id])


async def _sweep(world: World) -> None:
    await world.write(copies(3), 2)
    world.in_flight.clear()
    world.session = world.new_session()


async def _audit(world: World) -> None:
    await list(world.drives.values())[2].wipe()


async def _scrub(world: World) -> None:
    drive = list(world.drives.values())[3]
    drive.rotten |= set(drive.held())


async def _misfortunes_of_all_kinds(world: World) -> None:
    await _sweep(world)
    await _rebalance(world)
    await _collection(world)


@pytest.mark.parametrize(
    "happen", [_collection, _repair, _handoffs, _rebalance, _sweep, _audit, _scrub, _misfortunes_of_all_kinds]
)
async def test_killed_anywhere_it_loses_nothing_and_is_finished_by_the_next(
    happen: Callable[[World], Awaitable[None]],
) -> None:
    """Every process dies after one more touch of the world than the one before, until one lives to the end."""
    world = World(5)
    for code in (copies(2), erasure(2, 1), erasure(2, 2)):
        await world.create(code, 2)
        await world.create(code, 1)
    await happen(world)
    before = world.good_indices()
    for life in range(STEPS_MAX_COUNT):
        world.hand.left = life
        try:
            await Crew(world).round()
        except Killed:
            after = world.good_indices()
            assert all(after[block] >= indices for block, indices in before.items())
            continue
        break
    else:
        pytest.fail("no life was long enough")
    world.hand.left = None
    await Crew(world).rest(4)
    assert world.rows == world.living()
    assert all(world.is_whole(ref) for content in world.rows.values() for ref in content.refs)
    alive = {ref.id for content in world.rows.values() for ref in content.refs}
    held = {key for drive in world.drives.values() for key in drive.held()}
    assert {key.block for key in held} == alive
    assert all(isinstance(key, FragmentKey) for key in held)
    assert not world.outbox
    assert len(world.layouts.all) == 1
