"""One disk under all drives that has more to do than it can: nobody is slow, writers wait, and are then told to."""

import asyncio

import pytest

from holdfast.cluster.slow import SLOW_FACTOR, SlowDrives
from holdfast.cluster.write import GRACE_SECONDS, HANDOFF_AFTER_SECONDS, SLOW_WRITER_SECONDS, WRITE_TIMEOUT_SECONDS
from holdfast.core.errors import NodeDown, NotEnoughFragments, Timeout
from holdfast.erasure import CodedBlock, encode, erasure
from holdfast.testing.clock import FakeClock
from tests.unit.cluster.fakes import Group, drive_id, stray_tasks
from tests.unit.erasure.sample import sealed

WIDTH = 6


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def block() -> CodedBlock:
    return encode(sealed(200_000), erasure(4, 2))


class OneDisk:
    """A disk under every drive of a group: it does one thing after the other, each in `seconds`."""

    def __init__(self, group: Group, seconds: float) -> None:
        self.seconds = seconds
        self._clock = group.clock
        self._turn = asyncio.Lock()
        for drive in group.drives.values():
            drive.disk = self

    async def work(self) -> None:
        async with self._turn:
            await self._clock.sleep(self.seconds)


@pytest.mark.parametrize("seconds", [HANDOFF_AFTER_SECONDS * 1.5, WRITE_TIMEOUT_SECONDS * 0.9])
async def test_when_all_are_slow_nobody_is(clock: FakeClock, block: CodedBlock, seconds: float) -> None:
    group = Group(WIDTH + 2, clock)
    for drive in group.drives.values():
        drive.seconds = seconds
    homes = await group.homes(block.ref)
    for _ in range(2):
        put = asyncio.ensure_future(group.cluster.put(block, b""))
        await clock.advance(seconds)
        assert put.done()
        assert (await put).missing == ()
    assert [drive.calls for drive in group.drives.values() if drive not in homes] == [[], []], (
        "more work for a busy disk"
    )


@pytest.mark.parametrize("seconds", [0.1, 0.5, 0.9, 1.5, 4.0])
async def test_a_disk_that_takes_one_after_the_other_makes_no_drive_slow(
    clock: FakeClock, block: CodedBlock, seconds: float
) -> None:
    """The last fragment takes six times as long as the first, and comes home all the same."""
    group = Group(WIDTH + 2, clock)
    OneDisk(group, seconds)
    for _ in range(2):
        put = asyncio.ensure_future(group.cluster.put(block, b""))
        await clock.advance(seconds * WIDTH)
        assert put.done()
        assert (await put).missing == ()


async def test_more_than_the_disk_can_do_is_refused_in_time_and_the_rest_is_whole(clock: FakeClock) -> None:
    """Writers come faster than the disk works: who comes first is served whole, who waits too long is told so."""
    group = Group(WIDTH, clock)
    disk = OneDisk(group, 0.5)
    puts = []
    for number in range(20):
        coded = encode(sealed(100_000, number), erasure(4, 2))
        puts.append(asyncio.ensure_future(group.cluster.put(coded, b"")))
        await clock.advance(1.0)
    await clock.advance(2 * WRITE_TIMEOUT_SECONDS)
    results = await asyncio.gather(*puts, return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert refused
    assert {type(error) for error in refused} == {Timeout}
    assert not any(isinstance(result, BaseException) for result in results[:10])
    disk.seconds = 0.0
    put = asyncio.ensure_future(group.cluster.put(encode(sealed(100_000), erasure(4, 2)), b""))
    await clock.advance(0.01)
    assert (await put).missing == (), "when it is over, it is forgotten at once"
    assert not stray_tasks()


async def test_drives_that_never_answer_are_not_left_out_when_the_quorum_needs_them(
    clock: FakeClock, block: CodedBlock
) -> None:
    group = Group(WIDTH, clock)
    for number in (0, 1):
        group[number].seconds = 1000.0
    put = asyncio.ensure_future(group.cluster.put(block, b""))
    await clock.advance(WRITE_TIMEOUT_SECONDS)
    with pytest.raises(Timeout):
        await put
    group[0].seconds = 0.0
    put = asyncio.ensure_future(group.cluster.put(block, b""))
    await clock.advance(GRACE_SECONDS)
    homes = await group.homes(block.ref)
    assert (await put).missing == (homes.index(group[1]),)


async def test_drives_that_fail_are_not_called_busy(clock: FakeClock, block: CodedBlock) -> None:
    group = Group(WIDTH, clock)
    group[0].seconds = 1000.0
    for number in (1, 2):
        group[number].error = NodeDown
    put = asyncio.ensure_future(group.cluster.put(block, b""))
    await clock.advance(WRITE_TIMEOUT_SECONDS)
    with pytest.raises(NotEnoughFragments):
        await put


async def test_who_needs_far_longer_than_the_others_is_slow(clock: FakeClock, block: CodedBlock) -> None:
    """The quorum takes seconds; the last one gets as long again, and is then left out for a while."""
    group = Group(WIDTH, clock)
    for drive in group.drives.values():
        drive.seconds = 3.0
    homes = await group.homes(block.ref)
    homes[5].seconds = 1000.0
    put = asyncio.ensure_future(group.cluster.put(block, b""))
    await clock.advance(3.0 * SLOW_FACTOR - 0.1)
    assert not put.done()
    await clock.advance(0.2)
    assert (await put).missing == (5,)
    put = asyncio.ensure_future(group.cluster.put(block, b""))
    await clock.advance(3.0)
    assert (await put).missing == (5,), "the next does not wait"


async def test_a_home_that_was_left_out_is_written_to_when_another_fails(clock: FakeClock, block: CodedBlock) -> None:
    group = Group(WIDTH, clock)
    homes = await group.homes(block.ref)
    homes[0].seconds = 3.0
    homes[1].error = NodeDown
    group.cluster._slow_writers.note([homes[0].id])
    put = asyncio.ensure_future(group.cluster.put(block, b""))
    await clock.advance(3.0)
    assert (await put).missing == (0, 1)
    assert await homes[0].holds(block.ref) == {0}
    homes[2].error = NodeDown
    group.cluster._slow_writers.note([homes[0].id])
    put = asyncio.ensure_future(group.cluster.put(encode(sealed(100_000), erasure(4, 2)), b""))
    await clock.advance(3.0)
    with pytest.raises(NotEnoughFragments):
        await put
    assert not stray_tasks()


async def test_a_handoff_that_was_left_out_stands_in_when_the_others_do_not(
    clock: FakeClock, block: CodedBlock
) -> None:
    group = Group(WIDTH + 1, clock)
    homes = await group.homes(block.ref)
    [spare] = [drive for drive in group.drives.values() if drive not in homes]
    for home in homes[:2]:
        home.error = NodeDown
    group.cluster._slow_writers.note([spare.id])
    put = asyncio.ensure_future(group.cluster.put(block, b""))
    await clock.advance(0.1)
    assert (await put).missing == (0, 1)
    assert len(await spare.holds(block.ref)) == 1


def test_left_out_are_only_as_many_as_can_be_spared(clock: FakeClock) -> None:
    slow = SlowDrives(clock, SLOW_WRITER_SECONDS)
    order = [drive_id(number) for number in range(6)]
    assert not slow.left_out(order, order, 6)
    slow.note(order[:2])
    assert slow.left_out(order, order, 4) == set(order[:2])
    assert not slow.left_out(order, order, 5)
    assert not slow.left_out(order, order[:5], 4), "who is not attached does not help"
    assert slow.left_out(order, order[1:], 4) == {order[1]}
