"""Upkeep over the product itself: real rows, real trees, sealed tags, real placement; only the disks are memory."""

import functools
from collections.abc import AsyncIterator
from dataclasses import dataclass

import msgspec
import pytest

from holdfast.cli.catalogue import RowCatalogue, open_tag
from holdfast.cli.placing import RowLayouts
from holdfast.cluster.heal import Healer
from holdfast.core.ids import ContentId, DriveId, StoreId
from holdfast.core.limits import MIB
from holdfast.crypto.keyring import new_keyring
from holdfast.drives.memory import MemoryDrive
from holdfast.erasure import copies
from holdfast.meta.interface import Put
from holdfast.objects.model import PutOptions
from holdfast.objects.rows import ContentRow, content_row_key
from holdfast.placement import LayoutDrive, replace_drive
from holdfast.placement.layout import State as DriveState
from holdfast.placement.layout import retire
from holdfast.testing.clock import SeededRandomness
from holdfast.upkeep import recode
from holdfast.upkeep.audit import Auditor
from holdfast.upkeep.collect import Collector
from holdfast.upkeep.fsck import Finding, Trouble, fsck
from holdfast.upkeep.interface import ContentEntry
from holdfast.upkeep.rebalance import Rebalancer
from holdfast.upkeep.recode import Recoder
from holdfast.upkeep.repair import Repairer
from holdfast.upkeep.status import health
from holdfast.upkeep.sweep import PERIOD_SECONDS, Sweeper
from holdfast.upkeep.worker import settle
from tests.unit.objects.world import World, collect


@dataclass
class Store:
    world: World
    bodies: dict[str, bytes]

    def __post_init__(self) -> None:
        world = self.world
        self.catalogue = RowCatalogue(world.meta, world.contents, world.tags, world.clock, world.randomness)
        self.layouts = RowLayouts(world.layouts)
        self.healer = Healer(world.drives, self.layouts)
        # The world's keyring is the first thing that it draws from its seed.
        keyring = new_keyring(StoreId(bytes(16)), SeededRandomness(7))
        self.open_tag = functools.partial(open_tag, keyring.tag_opener())

    async def put(self, key: str, length: int) -> None:
        body = self.world.randomness.bytes(length)
        await self.world.store.put_object("bucket", key, body, PutOptions())
        self.bodies[key] = body

    async def check(self) -> None:
        """Everything reads back, and fsck, reading every fragment, has nothing to say."""
        for key, body in self.bodies.items():
            reader = await self.world.store.open_object("bucket", key)
            assert await collect(reader.read()) == body
        assert await self.fsck() == []

    async def fsck(self, *, repair: bool = False) -> list[Finding]:
        found = fsck(self.catalogue, self.world.drives, self.layouts, self.open_tag, read=True, repair=repair)
        return [finding async for finding in found]

    def fragments(self) -> int:
        return sum(len(drive._fragments) for drive in self.world.drives.values())

    async def follow(self) -> None:
        self.world.cluster.use(await self.world.layouts.live())

    async def rebalance(self) -> None:
        await settle(Rebalancer(self.catalogue, self.layouts, self.healer, self.world.clock))
        await self.follow()


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    store = Store(await World.open(), {})
    for number, length in enumerate((100, 20_000, 300_000, MIB, 3 * MIB + 17)):
        await store.put(f"key{number}", length)
    yield store
    await store.world.close()


async def test_a_store_in_use_is_sound(store: Store) -> None:
    await store.check()
    assert (await health(store.catalogue, store.layouts, copies(1))).words() == "healthy"


async def test_two_wiped_drives_are_noticed_and_made_whole(store: Store) -> None:
    for drive in list(store.world.drives.values())[:2]:
        await drive.delete(list(drive._fragments))
    await settle(Auditor(store.catalogue, store.layouts, store.healer, store.world.clock))
    assert await store.catalogue.count_damaged() > 0
    await settle(Repairer(store.catalogue, store.healer, store.world.clock))
    assert await store.catalogue.count_damaged() == 0
    await store.check()


async def test_a_replaced_and_a_drained_drive(store: Store) -> None:
    world = store.world
    old, second, *_ = world.drives
    del world.drives[old]
    new = MemoryDrive(DriveId(b"\x99" * 16))
    world.drives[new.id] = new
    layout = replace_drive(world.layout, old, LayoutDrive(new.id, 1 << 40, "node"))
    await world.layouts.publish(layout)
    await store.follow()
    await store.rebalance()
    await store.check()
    assert len(await world.layouts.live()) == 1
    spare = MemoryDrive(DriveId(b"\xaa" * 16))
    world.drives[spare.id] = spare
    layout = replace_drive(layout, second, LayoutDrive(spare.id, 1 << 40, "node"))
    await world.layouts.publish(layout)
    await store.follow()
    await store.put("late", MIB)
    await store.rebalance()
    assert not world.drives[second]._fragments
    assert DriveState.GONE in {drive.state for drive in (await world.layouts.live())[0].drives}
    await store.check()


async def test_a_drain_to_fewer_drives_than_fragments(store: Store) -> None:
    world = store.world
    drained = next(iter(world.drives))
    await world.layouts.publish(retire(world.layout, drained, DriveState.DRAINING))
    await store.follow()
    await store.rebalance()
    assert not world.drives[drained]._fragments
    for key, body in store.bodies.items():
        assert await collect((await world.store.open_object("bucket", key)).read()) == body
    assert len(await world.layouts.live()) == 1


async def test_what_is_deleted_and_what_was_never_finished_both_go(store: Store) -> None:
    world = store.world
    for key in list(store.bodies):
        await world.store.delete_object("bucket", key)
    away = next(iter(world.drives))
    drive = world.drives.pop(away)
    await world.clock.advance(7200)
    await settle(Collector(store.catalogue, world.drives, store.layouts, world.clock))
    assert store.fragments() == 0
    world.drives[away] = drive
    assert drive._fragments
    await world.sessions.close()  # every content was written by this process's session
    sweeper = Sweeper(drive, store.catalogue, store.open_tag, world.clock)
    for _ in range(3):
        await settle(sweeper)
        await world.clock.advance(PERIOD_SECONDS)
    assert not drive._fragments


async def damage_a_walk_root(store: Store) -> ContentId:
    """Of the first content in the order of ids."""
    [first, *_] = [entry.content async for entry in store.catalogue.contents()]
    row = await store.world.meta.get(content_row_key(first))
    damaged = msgspec.structs.replace(ContentRow.decode(row.value), walk_root=bytes(100))
    await store.world.meta.commit([Put(row.key, damaged.encode())], token=row.token)
    return first


async def test_a_damaged_walk_root_is_found_and_ends_no_walk(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    world = store.world
    damaged = await damage_a_walk_root(store)
    found = await store.fsck()
    assert {(finding.trouble, finding.content) for finding in found} == {(Trouble.UNREAD, damaged)}
    old, *_ = world.drives
    lost = world.drives.pop(old)
    new = MemoryDrive(DriveId(b"\x99" * 16))
    world.drives[new.id] = new
    await world.layouts.publish(replace_drive(world.layout, old, LayoutDrive(new.id, 1 << 40, "node")))
    await store.follow()
    await store.rebalance()
    assert len(await world.layouts.live()) == 2, "a content may still be where the older layout wants it"
    assert {entry.layout_version for entry in await entries(store) if entry.content != damaged} == {2}
    auditor = Auditor(store.catalogue, store.layouts, store.healer, world.clock)
    await settle(auditor)
    assert auditor.status().endswith("1 unreadable")
    assert f"the blocks of content {damaged.hex()} cannot be found" in caplog.text
    assert lost._fragments


async def entries(store: Store) -> list[ContentEntry]:
    return [entry async for entry in store.catalogue.contents()]


async def test_a_damaged_walk_root_keeps_its_own_content_and_no_other(store: Store) -> None:
    world = store.world
    damaged = await damage_a_walk_root(store)
    for key in list(store.bodies):
        await world.store.delete_object("bucket", key)
    await world.clock.advance(7200)
    worker = Collector(store.catalogue, world.drives, store.layouts, world.clock)
    await settle(worker)
    left = await store.catalogue.condemned(world.clock.now_ns())
    assert [condemned.content for condemned in left] == [damaged]
    assert worker.status() == "3 contents collected, 1 cannot be yet"
    await settle(worker)
    [note] = (await health(store.catalogue, store.layouts, copies(1))).notes()
    assert note.startswith("1 deleted object or part cannot be collected yet")


async def test_recode_to_copies(store: Store) -> None:
    world = store.world
    await recode.order(store.catalogue, copies(2), world.clock)
    await settle(Recoder(store.catalogue, world.clock))
    await world.clock.advance(7200)
    await settle(Collector(store.catalogue, world.drives, store.layouts, world.clock))
    entries = [entry async for entry in store.catalogue.contents()]
    assert {entry.code for entry in entries} == {copies(2)}
    await store.check()


async def test_rot_everywhere_within_the_code_is_mended(store: Store) -> None:
    drives = list(store.world.drives.values())
    for drive in drives[2:4]:
        for key, fragment in list(drive._fragments.items()):
            flipped = bytes([fragment.payload[0] ^ 1]) + bytes(fragment.payload[1:])
            drive._fragments[key] = type(fragment)(
                fragment.key, fragment.commitment, fragment.leaves, fragment.tag, flipped
            )
    assert await store.fsck(repair=True)
    await settle(Repairer(store.catalogue, store.healer, store.world.clock))
    await store.check()
