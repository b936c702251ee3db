"""Uploads whose blocks are all written and whose publish fails: what becomes of the blocks.

A session protects what its process writes, and a server lives long: whatever is not given up here takes space until it
is restarted.
"""

import asyncio

import pytest

from holdfast.core.errors import Ambiguous, Full, NodeDown, Unavailable
from holdfast.core.ranges import prefix_range
from holdfast.meta.interface import HasToken, Row
from holdfast.objects.model import PutOptions
from holdfast.objects.publish import Publisher
from holdfast.objects.rows import CONDEMNED
from holdfast.objects.versions import Draft
from tests.unit.objects.world import World, collect

BODY = bytes(9000)


async def condemned(world: World) -> int:
    """Contents that upkeep will collect."""
    page = await world.meta.scan(prefix_range(CONDEMNED), limit=100)
    return sum(isinstance(entry, Row) for entry in page.entries)


async def put(world: World) -> None:
    await world.store.put_object("bucket", "key", BODY, PutOptions())


@pytest.mark.parametrize(
    ("error", "given_up"), [(Full(), 1), (NodeDown(), 1), (asyncio.CancelledError(), 1), (Ambiguous(), 0)]
)
async def test_blocks_of_a_publish_that_failed(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, given_up: int
) -> None:
    world = await World.open()

    async def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(Publisher, "put", failing)
    with pytest.raises(type(error)):
        await put(world)
    assert await condemned(world) == given_up


async def test_blocks_of_a_publish_whose_client_left_once_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World.open()
    publish = Publisher.put

    async def left(publisher: Publisher, bucket: str, key: bytes, draft: Draft, *rest: object) -> None:
        await publish(publisher, bucket, key, draft, *rest)  # type: ignore[arg-type]
        raise asyncio.CancelledError

    monkeypatch.setattr(Publisher, "put", left)
    with pytest.raises(asyncio.CancelledError):
        await put(world)
    assert await condemned(world) == 0
    await world.collect_garbage()
    assert await collect((await world.store.open_object("bucket", "key")).read()) == BODY


async def test_blocks_that_were_placed_by_a_layout_that_was_retired(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World.open()

    def retired(version: int) -> HasToken:
        raise Unavailable(f"layout {version} was retired")

    monkeypatch.setattr(world.layouts, "expectation", retired)
    with pytest.raises(Unavailable):
        await put(world)
    assert await condemned(world) == 1
