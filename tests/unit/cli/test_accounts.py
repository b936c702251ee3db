"""Key pairs: what commands make of them, and when a process takes it up."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.cli.accounts import REFRESH_SECONDS, REVOKED_SECONDS, STALE_SECONDS, Accounts
from holdfast.core.errors import InvalidName, InvalidRequest, NodeDown, NotFound, Unavailable
from holdfast.core.ids import new_token
from holdfast.meta.interface import Put
from holdfast.meta.memory import MemoryMeta
from holdfast.objects.access import EITHER, READ, ROOT, WRITE
from holdfast.objects.rows import AccessKeyRow, access_key_row_key
from holdfast.testing.clock import FakeClock, SeededRandomness

GIVEN = ("ROOTKEY", "root-secret")


class BrokenMeta(MemoryMeta):
    """A map that can stop answering: with an error, or not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.hangs = False
        self.scans = 0

    async def get_many(self, keys):  # type: ignore[no-untyped-def]
        if self.broken:
            raise NodeDown("gone")
        if self.hangs:
            await asyncio.Event().wait()
        return await super().get_many(keys)

    async def scan(self, *arguments, **options):  # type: ignore[no-untyped-def]
        self.scans += 1
        return await super().scan(*arguments, **options)


class World:
    """A worker's view of the keys, and a command's, over one map."""

    def __init__(self) -> None:
        self.meta = BrokenMeta()
        self.clock = FakeClock()
        self.worker = Accounts(self.meta, self.clock, SeededRandomness(1))
        self.command = Accounts(self.meta, self.clock, SeededRandomness(2))


async def put(meta: MemoryMeta, row: AccessKeyRow) -> None:
    """As versions did that knew of no row for all keys."""
    await meta.commit([Put(access_key_row_key("OLD"), row.encode())], token=new_token(SeededRandomness(row.created_ns)))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    await world.command.ensure_root(GIVEN)
    await world.worker.start()
    yield world
    await world.worker.close()


async def test_a_worker_takes_up_every_change(world: World) -> None:
    worker, command = world.worker, world.command
    assert worker.secret(GIVEN[0]) == GIVEN[1]
    assert worker.access(GIVEN[0]) == ROOT
    key, secret = await command.create("backup", {"a": WRITE})
    with pytest.raises(NotFound):
        worker.secret(key)
    await world.clock.advance(REFRESH_SECONDS)
    assert worker.secret(key) == secret
    assert worker.access(key).allows("a", WRITE)
    assert await command.grant(key, {"b": READ, "a": READ}, frozenset()) == {"a": EITHER, "b": READ}
    await world.clock.advance(REFRESH_SECONDS)
    assert worker.access(key).grants == {"a": EITHER, "b": READ}
    assert await command.grant(key, {"b": WRITE}, frozenset(("a", "b"))) == {"b": WRITE}
    await command.enable(key, enabled=False)
    await world.clock.advance(REFRESH_SECONDS)
    with pytest.raises(NotFound):
        worker.secret(key)
    with pytest.raises(NotFound):
        worker.access(key)
    await command.enable(key, enabled=True)
    await world.clock.advance(REFRESH_SECONDS)
    assert worker.access(key).grants == {"b": WRITE}
    await command.delete(key)
    await world.clock.advance(REFRESH_SECONDS)
    with pytest.raises(NotFound):
        worker.secret(key)
    with pytest.raises(NotFound, match="holdfast key list"):
        await command.delete(key)
    assert [account.access_key for account in await command.all()] == [GIVEN[0]]


async def test_keys_that_did_not_change_are_not_read_again(world: World) -> None:
    before = world.meta.scans
    await world.clock.advance(10 * REFRESH_SECONDS)
    assert world.meta.scans == before
    await world.command.create("", {})
    await world.clock.advance(10 * REFRESH_SECONDS)
    assert world.meta.scans == before + 1


async def test_a_store_from_before_there_was_a_row_for_all_of_them() -> None:
    world = World()
    row = AccessKeyRow(AccessKeyRow.SHAPE, "old-secret", True, True, 2)
    await put(world.meta, row)
    await world.worker.start()
    assert world.worker.secret("OLD") == "old-secret"
    await put(world.meta, AccessKeyRow(1, "new-secret", True, True, 1))
    await world.clock.advance(REFRESH_SECONDS)
    assert world.worker.secret("OLD") == "new-secret"
    assert await world.command.ensure_root(None) == ("OLD", "new-secret")
    await world.worker.close()


@pytest.mark.parametrize("how", ["broken", "hangs"])
async def test_a_copy_that_cannot_be_compared_is_soon_worth_nothing(
    world: World, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.cli.accounts.READ_TIMEOUT_SECONDS", 0.05)
    setattr(world.meta, how, True)
    await world.clock.advance(REFRESH_SECONDS)
    assert world.worker.secret(GIVEN[0]) == GIVEN[1]
    for _ in range(3):
        await world.clock.advance(STALE_SECONDS)
        await asyncio.sleep(0.1)
    with pytest.raises(Unavailable):
        world.worker.secret(GIVEN[0])
    with pytest.raises(Unavailable):
        world.worker.access("who is that")
    setattr(world.meta, how, False)
    await world.clock.advance(STALE_SECONDS)
    assert world.worker.secret(GIVEN[0]) == GIVEN[1]


async def test_before_it_was_started_nobody_is_refused_for_good() -> None:
    with pytest.raises(Unavailable):
        World().worker.secret("any")


async def test_there_is_one_root_key_and_it_stays(world: World) -> None:
    for change in (
        world.command.enable(GIVEN[0], enabled=False),
        world.command.grant(GIVEN[0], {"a": READ}, frozenset()),
        world.command.delete(GIVEN[0]),
    ):
        with pytest.raises(InvalidRequest, match="HOLDFAST_ROOT_ACCESS_KEY"):
            await change
    await world.command.ensure_root(("OTHER", "other-secret"))
    assert await world.command.root() == ("OTHER", "other-secret")
    listed = {account.access_key: (account.access.root, account.enabled) for account in await world.command.all()}
    assert listed == {GIVEN[0]: (True, False), "OTHER": (True, True)}
    with pytest.raises(InvalidRequest):
        await world.command.enable(GIVEN[0], enabled=True)
    await world.command.delete(GIVEN[0])
    assert await world.command.ensure_root(None) == ("OTHER", "other-secret")


async def test_more_keys_than_a_page(world: World) -> None:
    made = [await world.command.create(str(number), {}) for number in range(1100)]
    await world.clock.advance(REFRESH_SECONDS)
    assert all(world.worker.secret(key) == secret for key, secret in made)
    assert len(await world.command.all()) == 1101


@pytest.mark.parametrize("label", ["x" * 201, "a\nb"])
async def test_labels(world: World, label: str) -> None:
    with pytest.raises(InvalidName):
        await world.command.create(label, {})


async def test_a_process_that_stood_still_serves_nobody_before_it_has_looked(world: World) -> None:
    """A virtual machine that was paused, a process that was stopped: a key may have been disabled meanwhile."""
    assert world.worker.access("ROOTKEY") == ROOT
    world.clock._move_to(round(REVOKED_SECONDS * 1e9))
    with pytest.raises(Unavailable):
        world.worker.secret("ROOTKEY")
    with pytest.raises(Unavailable):
        world.worker.access("ROOTKEY")
    await world.clock.advance(REFRESH_SECONDS)
    assert world.worker.access("ROOTKEY") == ROOT
