"""One block brought home: what is read, what is written, and what is never dropped too early."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from holdfast.cluster.heal import Healed, Healer
from holdfast.core.errors import NodeDown
from holdfast.core.ids import DriveId
from holdfast.drives.interface import Fragment, FragmentKey, FragmentPart
from holdfast.erasure import BlockRef, Code, copies, encode, erasure
from holdfast.upkeep.interface import StoredBlock
from tests.unit.upkeep.world import Placed, World

CODE = erasure(2, 1)


async def block_of(world: World, code: Code = CODE) -> StoredBlock:
    content = await world.create(code, 1)
    return await anext(world.blocks(content))


def homes(world: World, ref: BlockRef) -> tuple[DriveId, ...]:
    return world.layouts.all[0].drives(ref)


def take(world: World, ref: BlockRef, index: int) -> Fragment:
    """Take a fragment off its home, as a drive that lost it."""
    return world.drives[homes(world, ref)[index]].lose(FragmentKey(ref.id, index))


async def heal(world: World, block: StoredBlock, *, blindly: bool = False) -> Healed:
    healer = Healer(world.attached(), world.layouts)
    survey = (await healer.survey([block.ref], world.layouts.all[0]))[0] if blindly else None
    return await healer.heal(block.ref, block.tag, survey)


@pytest.mark.parametrize("code", [copies(3), erasure(2, 1), erasure(2, 2)])
@pytest.mark.parametrize("index", [0, 1, 2])
async def test_what_was_lost_is_rebuilt_bit_for_bit(code: Code, index: int) -> None:
    world = World(6)
    block = await block_of(world, code)
    lost = take(world, block.ref, index)
    healed = await heal(world, block)
    assert healed.whole
    assert healed.written == 1
    again = world.drives[homes(world, block.ref)[index]].held()[lost.key]
    assert (again.commitment, again.leaves, again.tag, bytes(again.payload)) == (
        lost.commitment,
        lost.leaves,
        lost.tag,
        bytes(lost.payload),
    )


async def test_rot_at_home_is_found_and_replaced() -> None:
    world = World(6)
    block = await block_of(world)
    world.drives[homes(world, block.ref)[0]].rotten.add(FragmentKey(block.ref.id, 0))
    assert (await heal(world, block)).written == 1
    assert world.is_whole(block.ref)


async def test_wrong_bytes_with_a_good_checksum_are_caught_by_the_commitment() -> None:
    world = World(6)
    block = await block_of(world)
    drive = world.drives[homes(world, block.ref)[1]]
    key = FragmentKey(block.ref.id, 1)
    good = drive.held()[key]
    drive.held()[key] = Fragment(key, good.commitment, good.leaves, good.tag, bytes(len(good.payload)))
    assert (await heal(world, block)).written == 1
    assert bytes(drive.held()[key].payload) == bytes(good.payload)


async def test_nothing_is_dropped_on_the_strength_of_a_home_that_rots() -> None:
    """One copy, at home and rotten; a good one elsewhere: the index alone says that the latter is surplus."""
    world = World(3)
    block = await block_of(world, copies(1))
    home, other, *_ = homes(world, block.ref)
    key = FragmentKey(block.ref.id, 0)
    await world.drives[other].inner.put([world.drives[home].held()[key]])
    world.drives[home].rotten.add(key)
    assert (await heal(world, block, blindly=True)).whole
    assert world.is_whole(block.ref)


async def test_a_full_home_keeps_the_handoff() -> None:
    world = World(3)
    block = await block_of(world, copies(1))
    home, other, *_ = homes(world, block.ref)
    fragment = take(world, block.ref, 0)
    await world.drives[other].inner.put([fragment])
    world.drives[home].inner._capacity = 0
    healed = await heal(world, block)
    assert not healed.whole
    assert world.holders(block.ref) == {0: {other}}


@pytest.mark.parametrize("who", ["source", "target", "surplus"])
async def test_a_drive_that_is_taken_out_after_it_was_asked_is_one_that_does_not_answer(who: str) -> None:
    world = World(3)
    block = await block_of(world, copies(1))
    home, other, *_ = homes(world, block.ref)
    fragment = world.drives[home].held()[FragmentKey(block.ref.id, 0)]
    await world.drives[other].inner.put([fragment])
    if who != "surplus":
        take(world, block.ref, 0)
    drives = dict(world.attached())
    healer = Healer(drives, world.layouts)
    [survey] = await healer.survey([block.ref], world.layouts.all[0])
    del drives[home if who == "target" else other]
    healed = await healer.heal(block.ref, block.tag, survey)
    assert not healed.whole
    assert world.holders(block.ref) == {0: {home, other} if who == "surplus" else {other}}


async def test_nothing_is_dropped_once_the_layout_has_changed() -> None:
    world = World(3)
    block = await block_of(world, copies(1))
    home, other, *_ = homes(world, block.ref)
    await world.drives[other].inner.put([world.drives[home].held()[FragmentKey(block.ref.id, 0)]])
    asked = 0

    async def live() -> list[Placed]:
        nonlocal asked
        asked += 1
        if asked == 2:
            world.layouts.change([other])
        return list(world.layouts.all)

    world.layouts.live = live  # type: ignore[method-assign]
    healed = await heal(world, block)
    assert not healed.whole
    assert world.holders(block.ref) == {0: {home, other}}


async def test_two_healers_that_believe_in_different_layouts_leave_one_fragment() -> None:
    """The second drops what the first is about to keep, between the first one's look and its deletion."""
    world = World(3)
    block = await block_of(world, copies(1))
    home, other, *_ = homes(world, block.ref)
    await world.drives[other].inner.put([world.drives[home].held()[FragmentKey(block.ref.id, 0)]])
    entered = 0

    @asynccontextmanager
    async def exclusive() -> AsyncIterator[None]:
        nonlocal entered
        entered += 1
        if entered == 1:
            world.layouts.change([other])
            newer = Healer(world.attached(), world.layouts)
            assert (await newer.heal(block.ref, block.tag)).dropped == 1
            world.layouts.all = world.layouts.all[1:]  # the first one's view of the layouts is of before
        yield

    healed = await Healer(world.attached(), world.layouts, exclusive).heal(block.ref, block.tag)
    assert (healed.dropped, healed.whole) == (0, False)
    assert world.holders(block.ref) == {0: {other}}


async def test_a_silent_drive_is_waited_for() -> None:
    world = World(6)
    block = await block_of(world)
    world.drives[homes(world, block.ref)[0]].silent = True
    healed = await heal(world, block)
    assert not healed.whole
    assert not healed.lost
    assert healed.written == 0


async def test_a_drive_that_fails_only_when_read_is_waited_for() -> None:
    world = World(6)
    block = await block_of(world, copies(3))
    drive = world.drives[homes(world, block.ref)[0]]
    drive.inner.get = failing  # type: ignore[assignment,method-assign]
    healed = await heal(world, block)
    assert (healed.whole, healed.lost, healed.written) == (False, False, 0)


async def failing(*_: object) -> FragmentPart:
    raise NodeDown("reads fail")


async def test_a_drive_that_is_not_attached_is_silent() -> None:
    world = World(6)
    block = await block_of(world)
    del world.drives[homes(world, block.ref)[0]]
    healed = await heal(world, block)
    assert (healed.whole, healed.lost, healed.written) == (False, False, 0)


async def test_too_few_good_fragments_are_said_to_be_lost_and_left_alone() -> None:
    world = World(6)
    block = await block_of(world)
    take(world, block.ref, 0)
    take(world, block.ref, 1)
    healed = await heal(world, block)
    assert healed.lost
    assert not healed.whole
    assert set(world.holders(block.ref)) == {2}


async def test_good_fragments_of_another_making_are_not_written() -> None:
    """A fragment whose own commitment is sound, but is another block's, counts as bad."""
    world = World(6)
    block = await block_of(world)
    other = encode(bytes(200), erasure(2, 1))
    key = FragmentKey(block.ref.id, 0)
    drive = world.drives[homes(world, block.ref)[0]]
    drive.held()[key] = Fragment(key, other.commitment, other.leaves[0], block.tag, bytes(other.payloads[0]))
    assert (await heal(world, block)).written == 1
    assert drive.held()[key].commitment != other.commitment
