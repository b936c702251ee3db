"""The budget of blocks: who waits, who does not, and that nothing of it is lost."""

import asyncio

import pytest

from holdfast.tree.threads import BlockBudget


async def test_a_writer_waits_for_a_block_and_is_served_in_turn() -> None:
    budget = BlockBudget(blocks=2, ahead=1)
    await budget.acquire()
    await budget.acquire()
    order: list[int] = []

    async def write(number: int) -> None:
        await budget.acquire()
        order.append(number)

    writers = [asyncio.create_task(write(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert order == []
    for _ in range(3):
        budget.release()
        await asyncio.sleep(0.01)
    assert order == [0, 1, 2]
    await asyncio.gather(*writers)
    assert budget.taken == 2


async def test_readers_ahead_leave_the_other_half_to_writers() -> None:
    budget = BlockBudget(blocks=4, ahead=2)
    assert [budget.try_ahead() for _ in range(3)] == [True, True, False]
    async with asyncio.timeout(1):
        await budget.acquire()
        await budget.acquire()
    budget.release_ahead()
    assert budget.try_ahead()
    budget.release_ahead()
    budget.release_ahead()
    assert budget.taken == 2


async def test_nothing_is_read_ahead_while_a_writer_waits() -> None:
    budget = BlockBudget(blocks=2, ahead=1)
    await budget.acquire()
    await budget.acquire()
    writer = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0)
    budget.release()
    assert not budget.try_ahead()
    await writer
    budget.release()
    assert budget.try_ahead()


@pytest.mark.parametrize("handed_over", [False, True])
async def test_a_cancelled_wait_takes_nothing(handed_over: bool) -> None:
    budget = BlockBudget(blocks=1, ahead=0)
    await budget.acquire()
    writer = asyncio.create_task(budget.acquire())
    await asyncio.sleep(0)
    if handed_over:
        budget.release()
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    if not handed_over:
        budget.release()
    assert budget.taken == 0
