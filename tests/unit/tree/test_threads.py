"""The budget of blocks: who waits, who does not, and that nothing of it is lost."""

import asyncio

import pytest

from holdfast.tree.threads import BlockBudget


async def test_a_writer_waits_for_a_block_and_is_served_in_turn() -> None:
    budget = BlockBudget(total=2, ahead=1)
    await budget.acquire(1)
    await budget.acquire(1)
    order: list[int] = []

    async def write(number: int) -> None:
        await budget.acquire(1)
        order.append(number)

    writers = [asyncio.create_task(write(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    for _ in range(3):
        budget.release(1)
        await asyncio.sleep(0.01)
    assert order == [0, 1, 2]
    await asyncio.gather(*writers)
    assert budget.taken == 2


async def test_readers_ahead_leave_the_other_half_to_writers() -> None:
    budget = BlockBudget(total=4, ahead=2)
    assert [budget.try_ahead(1) for _ in range(3)] == [True, True, False]
    async with asyncio.timeout(60):
        await budget.acquire(1)
        await budget.acquire(1)
    budget.release_ahead(1)
    assert budget.try_ahead(1)
    budget.release_ahead(1)
    budget.release_ahead(1)
    assert budget.taken == 2


async def test_nothing_is_read_ahead_while_a_writer_waits() -> None:
    budget = BlockBudget(total=2, ahead=1)
    await budget.acquire(1)
    await budget.acquire(1)
    writer = asyncio.create_task(budget.acquire(1))
    await asyncio.sleep(0)
    budget.release(1)
    assert not budget.try_ahead(1)
    await writer
    budget.release(1)
    assert budget.try_ahead(1)


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_cancelled_wait_takes_nothing(handed_over: bool) -> None:
    budget = BlockBudget(total=1, ahead=0)
    await budget.acquire(1)
    writer = asyncio.create_task(budget.acquire(1))
    await asyncio.sleep(0)
    if handed_over:
        budget.release(1)
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    if not handed_over:
        budget.release(1)
    assert budget.taken == 0


async def test_a_long_block_waits_until_there_is_room_and_nobody_overtakes_it() -> None:
    budget = BlockBudget(total=4, ahead=1)
    await budget.acquire(3)
    long, short = asyncio.create_task(budget.acquire(2)), asyncio.create_task(budget.acquire(1))
    await asyncio.sleep(0)
    assert not budget.try_ahead(1)
    assert not long.done()
    assert not short.done()
    budget.release(3)
    await asyncio.gather(long, short)
    assert budget.taken == 3


async def test_those_behind_a_cancelled_wait_are_served() -> None:
    budget = BlockBudget(total=4, ahead=1)
    await budget.acquire(3)
    long, short = asyncio.create_task(budget.acquire(2)), asyncio.create_task(budget.acquire(1))
    await asyncio.sleep(0)
    long.cancel()
    async with asyncio.timeout(60):
        await short
    budget.release(3)
    assert budget.taken == 1
