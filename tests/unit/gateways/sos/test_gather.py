"""Batches that make themselves: nobody waits for one to fill, nobody is forgotten, answers reach who asked."""

import asyncio
from collections.abc import Sequence

import pytest

from holdfast.core.errors import HoldfastError, NotFound, Unavailable
from holdfast.gateways.sos.gather import REQUESTS_AT_ONCE_COUNT, Gatherer


class Server:
    """Answers batches when it is let; knows them."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.fails: HoldfastError | None = None

    async def send(self, items: Sequence[int]) -> list[int | HoldfastError]:
        self.batches.append(list(items))
        await self.open.wait()
        if self.fails is not None:
            raise self.fails
        return [NotFound("odd") if item % 2 else -item for item in items]


@pytest.fixture
def server() -> Server:
    return Server()


async def settle() -> None:
    """Whoever can go on without an answer has done so."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.fixture
def gatherer(server: Server) -> Gatherer[int, int]:
    return Gatherer(server.send, lambda item: item, weight_max=100, count_max=10)


async def test_what_comes_meanwhile_goes_together(server: Server, gatherer: Gatherer[int, int]) -> None:
    asking = [asyncio.create_task(gatherer.ask(0))]
    await settle()
    assert server.batches == [[0]], "who is alone does not wait"
    asking += [asyncio.create_task(gatherer.ask(number)) for number in range(1, 30)]
    asking.append(asyncio.create_task(gatherer.ask(98)))
    asking += [asyncio.create_task(gatherer.ask(number)) for number in (4, 6)]
    await settle()
    assert len(server.batches) == REQUESTS_AT_ONCE_COUNT
    server.open.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    items = [*range(30), 98, 4, 6]
    assert [item for batch in server.batches for item in batch] == items
    assert all(len(batch) <= 10 and sum(batch[:-1]) < 100 for batch in server.batches)
    for item, answer in zip(items, answers, strict=True):
        assert type(answer) is NotFound if item % 2 else answer == -item


async def test_a_failed_request_fails_its_batch_alone(server: Server, gatherer: Gatherer[int, int]) -> None:
    server.open.set()
    server.fails = Unavailable("gone")
    answers = await asyncio.gather(*(gatherer.ask(number) for number in range(4)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 4
    server.fails = None
    assert await gatherer.ask(2) == -2


async def test_who_is_cancelled_leaves_the_others_alone(server: Server, gatherer: Gatherer[int, int]) -> None:
    asking = [asyncio.create_task(gatherer.ask(2 * number)) for number in range(6)]
    await settle()
    second = asyncio.create_task(gatherer.ask(60))
    await settle()
    assert len(server.batches) == REQUESTS_AT_ONCE_COUNT
    for task in asking[::2]:
        task.cancel()
    late = asyncio.create_task(gatherer.ask(50))
    await settle()
    late.cancel()
    await asyncio.gather(late, return_exceptions=True)
    server.open.set()
    assert await asyncio.gather(*asking[1::2], second) == [-2, -6, -10, -60]
    assert server.batches == [[0, 2, 4, 6, 8, 10], [60]]


async def test_whoever_asks_at_the_end_of_a_batch_is_served(gatherer: Gatherer[int, int], server: Server) -> None:
    """Also in the step in which the answers are handed out."""
    server.open.set()
    for _ in range(50):
        first = asyncio.create_task(gatherer.ask(2))
        while not first.done():
            await asyncio.sleep(0)
            assert await gatherer.ask(4) == -4
        assert first.result() == -2
