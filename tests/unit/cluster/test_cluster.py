"""Quorum writes, checked reads, handoffs, hedging: each rule with a test that breaks without it."""

import asyncio
import gc
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import pytest

from holdfast.cluster import Cluster
from holdfast.cluster.heal import delete_everywhere, survey_blocks
from holdfast.cluster.latency import HEDGE_MAX_SECONDS, HEDGE_MIN_SECONDS, Latency
from holdfast.cluster.places import LAYOUTS_LIVE_MAX_COUNT
from holdfast.cluster.read import INLINE_MAX_BYTES, READ_TIMEOUT_SECONDS, Read
from holdfast.cluster.write import GRACE_SECONDS, HANDOFF_AFTER_SECONDS, WRITE_TIMEOUT_SECONDS
from holdfast.core.errors import (
    Corrupt,
    Full,
    InvalidRequest,
    NodeDown,
    NotEnoughFragments,
    Timeout,
    Unavailable,
)
from holdfast.core.ids import BlockId
from holdfast.drives.interface import FragmentKey
from holdfast.erasure import BlockRef, Code, copies, encode, erasure
from holdfast.placement import LayoutDrive, State, add, first_layout, retire
from holdfast.testing.clock import FakeClock
from tests.unit.cluster.fakes import Group, drive_id, layout_of, stray_tasks
from tests.unit.erasure.sample import sealed

BLOCK = sealed(200_000)
CODES = [erasure(4, 2), copies(3), copies(1), erasure(2, 2)]


T = TypeVar("T")


async def soon(clock: FakeClock, awaitable: Awaitable[T], seconds: float) -> T:
    """The result of something that is over within `seconds` of the clock."""
    task = asyncio.ensure_future(awaitable)
    await clock.advance(seconds)
    assert task.done(), f"not over after {seconds} s"
    return await task


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize("length", [100, 40_000, 300_001])
async def test_what_was_put_is_got(code: Code, length: int) -> None:
    group = Group(7)
    block = encode(sealed(length), code)
    written = await group.cluster.put(block, b"tag")
    assert written.missing == ()
    assert written.layout_version == 1
    assert await group.is_whole(block.ref)
    assert bytes(await group.cluster.get(block.ref, bytes)) == sealed(length)
    assert group.damage == []
    assert not stray_tasks()


@pytest.mark.parametrize("code", CODES, ids=str)
async def test_a_block_that_is_in_memory_is_had_without_waiting(code: Code) -> None:
    group = Group(7)
    block = encode(BLOCK, code)
    await group.cluster.put(block, b"tag")
    for drive in group.drives.values():
        drive.is_cached = True
        drive.calls.clear()
    assert await group.cluster.get(block.ref, bytes) == BLOCK
    assert [call for drive in group.drives.values() for call in drive.calls] == ["get_at_once"] * code.k
    assert group.damage == []
    with pytest.raises(ZeroDivisionError):
        await group.cluster.get(block.ref, lambda sealed: len(sealed) // 0)
    assert not stray_tasks()


@pytest.mark.parametrize("trouble", ["cold", "down", "missing", "rot that is noticed", "rot that is not"])
async def test_what_is_not_in_memory_or_not_good_is_asked_for_elsewhere(trouble: str) -> None:
    group = Group(7)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"tag")
    for drive in group.drives.values():
        drive.is_cached = True
    homes = await group.homes(block.ref)
    key = FragmentKey(block.ref.id, 2)
    if trouble == "cold":
        homes[2].is_cached = False
    elif trouble == "down":
        homes[2].error = NodeDown
    elif trouble == "missing":
        await homes[2].delete([key])
    else:
        homes[2].rot[key] = trouble == "rot that is noticed"
    assert await group.cluster.get(block.ref, bytes) == BLOCK
    assert [found[1] for found in group.damage] == ([] if trouble in ("cold", "down") else [2])
    assert not stray_tasks()


async def test_each_fragment_carries_what_checks_it() -> None:
    group = Group(6)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"a tag")
    for index, home in enumerate(await group.homes(block.ref)):
        part = await home.memory.get(FragmentKey(block.ref.id, index))
        assert (part.commitment, part.leaves, part.tag) == (block.commitment, block.leaves[index], b"a tag")


@pytest.mark.parametrize("code", [erasure(4, 2), copies(3)], ids=str)
async def test_reads_ask_for_k_fragments_and_no_more(code: Code) -> None:
    group = Group(7)
    block = encode(BLOCK, code)
    await group.cluster.put(block, b"")
    for drive in group.drives.values():
        drive.calls.clear()
    await group.cluster.get(block.ref, bytes)
    asked = [drive for drive in group.drives.values() if drive.calls]
    assert len(asked) == code.k
    assert all(drive.calls == ["get"] for drive in asked)


async def test_a_failed_home_is_replaced_by_the_first_handoff(clock: FakeClock) -> None:
    group = Group(8, clock)
    block = encode(BLOCK, erasure(4, 2))
    homes = await group.homes(block.ref)
    homes[3].error = NodeDown
    written = await group.cluster.put(block, b"")
    assert written.missing == (3,)
    handoffs = [drive for drive in group.drives.values() if drive not in homes]
    assert sorted([await drive.holds(block.ref) for drive in handoffs], key=len) == [set(), {3}]
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK
    for other in (homes[0], homes[1]):
        other.error = NodeDown
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK, (
        "with two more lost, the handoff is needed, and found"
    )


async def test_without_handoffs_the_quorum_is_enough_and_less_is_not() -> None:
    group = Group(6)
    block = encode(BLOCK, erasure(4, 2))
    homes = await group.homes(block.ref)
    homes[5].error = NodeDown
    assert (await group.cluster.put(block, b"")).missing == (5,)
    homes[0].error = NodeDown
    other = encode(sealed(200_000, 1), erasure(4, 2))
    with pytest.raises(NotEnoughFragments):
        await group.cluster.put(other, b"")
    assert not stray_tasks()


@pytest.mark.parametrize(("code", "losses"), [(erasure(4, 2), 1), (copies(3), 1), (copies(2), 0), (copies(1), 0)])
async def test_the_quorum_is_k_plus_one_or_all(code: Code, losses: int) -> None:
    group = Group(code.width)
    for number in range(losses):
        group[number].error = NodeDown
    block = encode(BLOCK, code)
    assert len((await group.cluster.put(block, b"")).missing) == losses
    group[losses].error = NodeDown
    with pytest.raises(NotEnoughFragments):
        await group.cluster.put(block, b"")


async def test_full_is_said_when_space_is_what_lacks() -> None:
    group = Group(6)
    for number in range(3):
        group[number].is_full = True
    with pytest.raises(Full):
        await group.cluster.put(encode(BLOCK, erasure(4, 2)), b"")
    for number in range(3, 6):
        group[number].error = NodeDown
    with pytest.raises(NotEnoughFragments):
        await group.cluster.put(encode(BLOCK, erasure(4, 2)), b"")


async def test_a_drive_that_is_not_attached_is_handed_off() -> None:
    group = Group(7)
    block = encode(BLOCK, erasure(4, 2))
    homes = await group.homes(block.ref)
    del group.drives[homes[2].id]
    assert (await group.cluster.put(block, b"")).missing == (2,)
    assert len((await group.holders(block.ref))[2]) == 1
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK


async def test_a_quorum_waits_for_the_rest_only_for_the_grace(clock: FakeClock) -> None:
    group = Group(6, clock)
    block = encode(BLOCK, erasure(4, 2))
    homes = await group.homes(block.ref)
    homes[4].seconds = GRACE_SECONDS / 2
    assert (await soon(clock, group.cluster.put(block, b""), GRACE_SECONDS)).missing == ()
    homes[4].seconds = 1000.0
    put = asyncio.ensure_future(group.cluster.put(encode(BLOCK, erasure(4, 2)), b""))
    await clock.advance(GRACE_SECONDS * 0.9)
    assert not put.done()
    assert (await soon(clock, put, GRACE_SECONDS * 0.2)).missing == (4,)
    assert group.running == 0
    assert not stray_tasks()


async def test_the_next_write_does_not_wait_for_a_drive_that_was_slow(clock: FakeClock) -> None:
    group = Group(7, clock)
    block = encode(BLOCK, erasure(4, 2))
    homes = await group.homes(block.ref)
    homes[1].seconds = 1000.0
    await soon(clock, group.cluster.put(block, b""), GRACE_SECONDS)
    assert (await soon(clock, group.cluster.put(block, b""), 0.001)).missing == (1,)
    homes[1].seconds = 0.0
    await clock.advance(10.0)
    assert (await soon(clock, group.cluster.put(block, b""), 0.001)).missing == ()


async def test_handoffs_help_when_slow_homes_keep_the_quorum_away(clock: FakeClock) -> None:
    group = Group(8, clock)
    block = encode(BLOCK, erasure(4, 2))
    homes = await group.homes(block.ref)
    homes[0].seconds = homes[1].seconds = 1000.0
    written = await soon(clock, group.cluster.put(block, b""), HANDOFF_AFTER_SECONDS + GRACE_SECONDS)
    assert written.missing == (0, 1)
    homes[0].error = homes[1].error = NodeDown
    homes[0].seconds = homes[1].seconds = 0.0
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK
    assert group.running == 0


async def test_a_write_that_hangs_is_given_up(clock: FakeClock) -> None:
    group = Group(6, clock)
    for number in (0, 1):
        group[number].seconds = 1000.0
    block = encode(BLOCK, erasure(4, 2))
    with pytest.raises(Timeout):
        await soon(clock, group.cluster.put(block, b""), WRITE_TIMEOUT_SECONDS)
    assert group.running == 0
    assert not stray_tasks()


@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_call_leaves_no_task_behind(clock: FakeClock, turns: int) -> None:
    group = Group(6, clock)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"")
    for drive in group.drives.values():
        drive.seconds = 1000.0
    calls = [
        group.cluster.put(block, b""),
        group.cluster.get(block.ref, bytes),
        group.healer.heal(block.ref, b""),
        delete_everywhere(group.drives, [block.ref]),
    ]
    for call in calls:
        task = asyncio.ensure_future(call)
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert group.running == 0
        assert not stray_tasks()


@pytest.mark.parametrize("is_noticed", [True, False])
@pytest.mark.parametrize("code", [erasure(4, 2), copies(3)], ids=str)
async def test_rotten_fragments_are_never_returned_and_are_reported(code: Code, is_noticed: bool) -> None:
    group = Group(6)
    block = encode(BLOCK, code)
    await group.cluster.put(block, b"")
    homes = await group.homes(block.ref)
    for index in range(code.m):
        homes[index].rot[FragmentKey(block.ref.id, index)] = is_noticed
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK
    assert {(ref, index, drive) for ref, index, drive, _ in group.damage} == {
        (block.ref, index, homes[index].id) for index in range(code.m)
    }
    for index in range(code.width):
        homes[index].rot[FragmentKey(block.ref.id, index)] = is_noticed
    with pytest.raises(Corrupt):
        await group.cluster.get(block.ref, bytes)


async def test_missing_fragments_are_made_up_for_and_reported() -> None:
    group = Group(6)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"")
    homes = await group.homes(block.ref)
    for index in (0, 2):
        await homes[index].delete([FragmentKey(block.ref.id, index)])
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK
    assert {(index, drive) for _, index, drive, _ in group.damage} == {(0, None), (2, None)}
    await homes[1].delete([FragmentKey(block.ref.id, 1)])
    with pytest.raises(NotEnoughFragments):
        await group.cluster.get(block.ref, bytes)


async def test_fragments_of_another_block_are_refused() -> None:
    """A drive that answers with another block's fragment, whole and consistent in itself."""
    group = Group(6)
    ours, theirs = encode(BLOCK, erasure(4, 2)), encode(sealed(200_000, 1), erasure(4, 2))
    await group.cluster.put(ours, b"")
    for index, home in enumerate(await group.homes(ours.ref)):
        if index in (0, 5):
            fragment = home.memory._fragments[FragmentKey(ours.ref.id, index)]
            forged = type(fragment)(
                fragment.key, theirs.commitment, theirs.leaves[index], b"", bytes(theirs.payloads[index])
            )
            home.memory._fragments[fragment.key] = forged
    assert bytes(await group.cluster.get(ours.ref, bytes)) == BLOCK
    assert [index for _, index, _, _ in group.damage] == [0]


async def test_a_block_that_no_drive_knows_is_not_taken_for_deleted() -> None:
    group = Group(6)
    ref = encode(BLOCK, erasure(4, 2)).ref
    with pytest.raises(NotEnoughFragments):
        await group.cluster.get(ref, bytes)
    assert group.damage == [], "it may have been deleted just now, and then nothing is wrong"
    group[3].error = NodeDown
    with pytest.raises(NotEnoughFragments):
        await group.cluster.get(ref, bytes)


@pytest.mark.parametrize("code", [copies(1), erasure(4, 2)], ids=str)
async def test_a_drive_that_is_detached_and_in_no_layout_any_more_may_come_back(code: Code) -> None:
    group = Group(6, spare=6)
    block = encode(BLOCK, code)
    await group.cluster.put(block, b"")
    group.cluster.use([first_layout(LayoutDrive(drive_id(i), 10**12, f"n{i}") for i in range(6, 12))])
    away = {drive_id(i): group.drives.pop(drive_id(i)) for i in range(6)}
    with pytest.raises(NotEnoughFragments):
        await group.cluster.get(block.ref, bytes)
    group.drives.update(away)
    assert await group.cluster.get(block.ref, bytes) == BLOCK


async def test_a_reference_that_does_not_match_reads_nothing() -> None:
    group = Group(6)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"")
    with pytest.raises(Corrupt):
        await group.cluster.get(BlockRef(block.ref.id, block.ref.code, block.ref.length - 1), bytes)
    with pytest.raises(NotEnoughFragments):
        await group.cluster.get(BlockRef(BlockId(bytes(32)), block.ref.code, block.ref.length), bytes)


async def test_a_late_drive_is_hedged(clock: FakeClock) -> None:
    group = Group(6, clock)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"")
    homes = await group.homes(block.ref)
    homes[1].seconds = 1000.0
    assert bytes(await soon(clock, group.cluster.get(block.ref, bytes), HEDGE_MIN_SECONDS)) == BLOCK
    assert group.running == 0
    assert bytes(await soon(clock, group.cluster.get(block.ref, bytes), 0.0)) == BLOCK, "it is asked last for a while"
    await clock.advance(5.0)
    homes[2].seconds = 1000.0
    assert bytes(await soon(clock, group.cluster.get(block.ref, bytes), 3 * HEDGE_MAX_SECONDS)) == BLOCK
    assert group.damage == []


async def test_a_read_that_hangs_is_given_up(clock: FakeClock) -> None:
    group = Group(6, clock)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"")
    for number in range(3):
        group[number].seconds = 1000.0
    with pytest.raises(NotEnoughFragments):
        await soon(clock, group.cluster.get(block.ref, bytes), READ_TIMEOUT_SECONDS + HEDGE_MAX_SECONDS)
    assert group.running == 0
    assert not stray_tasks()


async def test_a_bug_in_a_drive_is_not_swallowed() -> None:
    group = Group(6)
    block = encode(BLOCK, erasure(4, 2))
    with pytest.raises(InvalidRequest):
        await group.cluster.put(block, bytes(1000))
    await group.cluster.put(block, b"")
    for drive in group.drives.values():
        drive.error = InvalidRequest
    with pytest.raises(InvalidRequest):
        await group.cluster.get(block.ref, bytes)
    assert not stray_tasks()


async def test_what_a_read_held_is_free_when_it_is_over() -> None:
    """Fragments must not wait for the collector of cycles: readers would be given fresh memory meanwhile."""
    group = Group(7)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"")
    gc.collect()
    gc.disable()
    try:
        await group.cluster.get(block.ref, bytes)
        await asyncio.sleep(0)
        assert [found for found in gc.get_objects() if isinstance(found, Read)] == []
    finally:
        gc.enable()


async def test_older_layouts_are_read_until_they_are_given_up() -> None:
    group = Group(6, spare=6)
    block = encode(BLOCK, erasure(4, 2))
    await group.cluster.put(block, b"")
    moved = add(group.layout, [LayoutDrive(drive_id(i), 10**12, f"n{i}") for i in range(6, 12)])
    for i in range(6):
        moved = retire(moved, drive_id(i), State.DRAINING)
    group.cluster.use([moved, group.layout])
    for drive in group.drives.values():
        drive.calls.clear()
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK
    assert "has" not in {call for drive in group.drives.values() for call in drive.calls}, "found by its old home"
    assert group.damage == []
    assert (await group.cluster.put(encode(sealed(999), copies(2)), b"")).layout_version == moved.version
    group.cluster.use([moved])
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK, "found by asking everyone"
    assert {drive for _, _, drive, _ in group.damage} == {None}, "what is left at an old home is to be brought home"


async def test_live_layouts_are_few() -> None:
    group = Group(3)
    layouts = [group.layout]
    for number in range(3):
        layouts.append(add(layouts[-1], [LayoutDrive(drive_id(10 + number), 1, "n")]))
    group.cluster.use(layouts[:LAYOUTS_LIVE_MAX_COUNT])
    for wrong in (layouts, []):
        with pytest.raises(InvalidRequest):
            group.cluster.use(wrong)
    empty = Cluster({}, clock=FakeClock())
    with pytest.raises(Unavailable):
        await empty.get(encode(BLOCK, copies(1)).ref, bytes)
    with pytest.raises(Unavailable):
        await empty.put(encode(BLOCK, copies(1)), b"")


async def test_a_table_is_made_once_and_a_cancelled_caller_takes_it_from_nobody() -> None:
    group = Group(6)
    made: list[int] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            made.append(1)
            return super().submit(*args, **kwargs)

    with Counting(2) as threads:
        cluster = Cluster(group.drives, [group.layout], clock=group.clock, executor=threads)
        block = encode(sealed(100), copies(3))
        first, *others = [asyncio.ensure_future(cluster.put(block, b"")) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        cluster.use([add(group.layout, [LayoutDrive(drive_id(9), 1, "n")])])
        assert {written.layout_version for written in await asyncio.gather(*others)} == {1}
        assert len(made) == 1


async def test_fewer_drives_than_fragments() -> None:
    group = Group(5)
    block = encode(BLOCK, erasure(4, 2))
    assert (await group.cluster.put(block, b"")).missing == (5,)
    assert bytes(await group.cluster.get(block.ref, bytes)) == BLOCK
    assert len((await group.holders(block.ref))[5]) == 0
    assert (await group.healer.heal(block.ref, b"")).written == 0


async def test_a_survey_sees_handoffs_and_silence() -> None:
    group = Group(8)
    block = encode(BLOCK, erasure(4, 2))
    homes = await group.homes(block.ref)
    homes[0].error = NodeDown
    await group.cluster.put(block, b"")
    [placing] = await group.healer._layouts.live()
    [survey] = await survey_blocks(group.drives, placing, [block.ref])
    assert survey.silent == {homes[0].id}
    assert survey.good == dict(enumerate(await group.holders(block.ref)))
    assert homes[0].id not in survey.good[0]
    del group.drives[homes[1].id]
    [survey] = await survey_blocks(group.drives, placing, [block.ref])
    assert survey.silent == {homes[0].id, homes[1].id}


async def test_delete_finds_every_fragment_and_says_who_did_not_answer() -> None:
    group = Group(8)
    blocks = [encode(sealed(1000 + i), erasure(4, 2)) for i in range(5)]
    group[0].error = NodeDown
    for block in blocks:
        await group.cluster.put(block, b"")
    group[0].error = None
    group[7].error = NodeDown
    assert await delete_everywhere(group.drives, [block.ref for block in blocks[1:]]) == {group[7].id}
    for drive in group.drives.values():
        if drive is not group[7]:
            assert drive.calls.count("delete") <= 1
            assert not set().union(*[await drive.holds(block.ref) for block in blocks[1:]])
    assert bytes(await group.cluster.get(blocks[0].ref, bytes)) == sealed(1000)
    assert await delete_everywhere(group.drives, []) == frozenset()


async def test_only_drives_that_hold_something_are_told_to_delete() -> None:
    group = Group(6)
    block = encode(BLOCK, copies(2))
    await group.cluster.put(block, b"")
    await delete_everywhere(group.drives, [block.ref])
    assert sum(drive.calls.count("delete") for drive in group.drives.values()) == 2


@pytest.mark.parametrize("code", [erasure(4, 2), copies(3)], ids=str)
async def test_what_was_written_in_trouble_is_brought_home(code: Code) -> None:
    group = Group(8)
    block = encode(BLOCK, code)
    homes = await group.homes(block.ref)
    homes[0].error = NodeDown
    await group.cluster.put(block, b"")
    homes[0].error = None
    homes[1].rot[FragmentKey(block.ref.id, 1)] = False
    healed = await group.healer.heal(block.ref, b"new")
    assert (healed.whole, healed.written) == (True, 2)
    assert await group.is_whole(block.ref)
    for index, home in enumerate(homes):
        part = await home.get(FragmentKey(block.ref.id, index))
        assert bytes(part.data) == bytes(block.payloads[index])
    assert (await group.healer.heal(block.ref, b"new")).written == 0


async def test_large_blocks_are_checked_off_the_event_loop() -> None:
    group = Group(6)
    block = encode(sealed(INLINE_MAX_BYTES + 1), erasure(4, 2))
    with ThreadPoolExecutor(1) as threads:
        cluster = Cluster(group.drives, [group.layout], clock=group.clock, executor=threads)
        await cluster.put(block, b"")
        assert bytes(await cluster.get(block.ref, bytes)) == sealed(INLINE_MAX_BYTES + 1)


def test_hedging_follows_what_drives_take() -> None:
    latency = Latency()
    assert latency.hedge_after == HEDGE_MIN_SECONDS
    for _ in range(50):
        latency.observe(0.1)
    assert 0.1 <= latency.hedge_after < 0.2
    for _ in range(50):
        latency.observe(10.0)
    assert latency.hedge_after == HEDGE_MAX_SECONDS


def test_layouts_may_come_in_any_order() -> None:
    newer = add(layout_of(2), [LayoutDrive(drive_id(5), 1, "n")])
    Cluster({}, [layout_of(2), newer], clock=FakeClock())
    assert first_layout([]).active == ()
