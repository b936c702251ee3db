"""From damage that a read met to rows in the repair outbox: what is attributed, what is not, and to what it holds."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from holdfast.cli import damage
from holdfast.cli.catalogue import RowCatalogue
from holdfast.cli.damage import DamageReports
from holdfast.core.ids import BlockId, StoreId
from holdfast.core.limits import MIB
from holdfast.crypto.keyring import new_keyring
from holdfast.drives.interface import Fragment
from holdfast.erasure import BlockRef, erasure
from holdfast.objects.model import PutOptions
from holdfast.testing.clock import SeededRandomness
from tests.unit.objects.world import World


class Keys:
    """The keyring of a `World`, and how often a tag opener was made of it."""

    def __init__(self) -> None:
        self.openers = 0
        self._keyring = new_keyring(StoreId(bytes(16)), SeededRandomness(7))

    @property
    def keyring(self) -> "Keys":
        return self

    def tag_opener(self) -> Any:
        self.openers += 1
        return self._keyring.tag_opener()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open()
    yield world
    await world.close()


async def blocks_of(world: World, key: str, data: bytes) -> list[BlockRef]:
    """The references of the blocks that a put wrote."""
    before = {info.key.block for drive in world.drives.values() for info in await drive.list()}
    await world.store.put_object("bucket", key, data, PutOptions())
    after = {info.key.block for drive in world.drives.values() for info in await drive.list()}
    return [BlockRef(block, erasure(4, 2), 1) for block in sorted(after - before)]


async def reported(world: World, reports: DamageReports) -> list[BlockId]:
    catalogue = RowCatalogue(world.meta, world.contents, world.tags, world.clock, world.randomness)
    running = asyncio.create_task(reports.run(catalogue))
    for _ in range(50):
        await world.clock.advance(damage.PAUSE_SECONDS)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return [task.block.ref.id for task in await catalogue.damaged()]


async def test_blocks_are_attributed_in_batches(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "BATCH_COUNT", 2)
    refs = await blocks_of(world, "key", bytes(range(256)) * (3 * MIB // 256))
    assert len(refs) >= 3
    keys = Keys()
    reports = DamageReports(world.drives, cast(Any, keys), world.clock)
    for ref in refs:
        for index in range(2):  # the same block twice is one report
            reports.note(ref, index, None, "rotten")
    assert sorted(await reported(world, reports)) == [ref.id for ref in refs]
    assert keys.openers == -(-len(refs) // 2)


async def test_what_no_fragment_tells_of_is_left_to_scrub(world: World) -> None:
    (ref, *_) = await blocks_of(world, "key", bytes(MIB))
    reports = DamageReports(world.drives, cast(Any, Keys()), world.clock)
    reports.note(BlockRef(BlockId(b"n" * 32), erasure(4, 2), 1), 0, None, "nobody has it")
    assert await reported(world, reports) == []
    # A tag that was sealed for another block says nothing of this one.
    (other, *_) = await blocks_of(world, "other", b"x" * MIB)
    tags = {info.key.block: info.tag for drive in world.drives.values() for info in await drive.list()}
    for drive in world.drives.values():
        for info in await drive.list():
            if info.key.block == ref.id:
                part = await drive.get(info.key)
                await drive.delete([info.key])
                await drive.put([swapped(part, info, tags[other.id])])
    reports.note(ref, 0, None, "rotten")
    assert await reported(world, reports) == []


def swapped(part: Any, info: Any, tag: bytes) -> Fragment:
    """The same fragment under another block's tag."""
    return Fragment(info.key, part.commitment, part.leaves, tag, part.data)


async def test_only_so_many_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(damage, "NOTED_MAX_COUNT", 1)
    refs = await blocks_of(world, "key", bytes(range(256)) * (3 * MIB // 256))
    reports = DamageReports(world.drives, cast(Any, Keys()), world.clock)
    for ref in refs:
        reports.note(ref, 0, None, "rotten")
    assert await reported(world, reports) == [refs[0].id]
