"""A writer who reads a key while another one changes it reads again, and nobody is refused for it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from holdfast.core.limits import MIB
from holdfast.meta.interface import Row
from holdfast.objects.model import NO_CONDITIONS, NewObject, ObjectInfo, PutOptions, Versioning
from holdfast.objects.store import Store, StoreParts
from tests.unit.objects.world import World


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """In which the first look for the older null version of a key finds that somebody has just removed it."""
    world = await World.open()
    await world.store.put_object("bucket", "key", b"null", PutOptions())
    await world.store.set_versioning("bucket", Versioning.ENABLED)
    await world.store.put_object("bucket", "key", b"kept", PutOptions())
    await world.store.set_versioning("bucket", Versioning.SUSPENDED)
    # Another process: those of one take turns.
    other = Store(
        StoreParts(
            world.meta, world.contents, world.sessions, world.clock, world.randomness, ThreadPoolExecutor(1), MIB
        )
    )
    get_many = world.rows.get_many
    is_first = True

    async def raced(keys: Sequence[bytes]) -> list[Row | None]:
        nonlocal is_first
        if is_first and [key[:1] for key in keys] == [b"V"]:
            is_first = False
            await other.delete_object("bucket", "key", "null")
        return await get_many(keys)

    monkeypatch.setattr(world.rows, "get_many", raced)
    return world


async def versions(world: World) -> list[tuple[str, int, bool]]:
    """Of the key: null or not, size, and whether it is a delete marker."""
    found = (await world.store.list_versions("bucket", prefix="key")).objects
    return [("null" if info.version == "null" else "", info.size, info.delete_marker) for info in found]


async def test_a_put(world: World) -> None:
    await world.store.put_object("bucket", "key", b"newest", PutOptions())
    assert await versions(world) == [("null", 6, False), ("", 4, False)]


async def test_many_puts(world: World) -> None:
    made = await world.store.put_objects("bucket", [NewObject("key", b"newest"), NewObject("other", b"")])
    assert all(isinstance(one, ObjectInfo) for one in made)
    assert await versions(world) == [("null", 6, False), ("", 4, False)]


async def test_a_deletion(world: World) -> None:
    assert (await world.store.delete_object("bucket", "key")).delete_marker
    assert await versions(world) == [("null", 0, True), ("", 4, False)]


async def test_many_deletions(world: World) -> None:
    wanted = [("key", None, NO_CONDITIONS), ("other", None, NO_CONDITIONS)]
    assert not any(isinstance(one, Exception) for one in await world.store.delete_objects("bucket", wanted))
    assert await versions(world) == [("null", 0, True), ("", 4, False)]
