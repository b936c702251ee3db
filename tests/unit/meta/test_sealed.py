"""Sealed rows: the whole suite of the interface, and what the engine underneath gets to see."""

import asyncio

import pytest

from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import StoreId, Token
from holdfast.core.limits import COMMIT_CHANGES_MAX_COUNT, ROW_VALUE_MAX_BYTES
from holdfast.core.ranges import KeyRange
from holdfast.crypto.keyring import new_keyring, retired, rotated
from holdfast.meta.interface import Change, Delete, Fold, Folded, HasToken, Meta, Put, Row
from holdfast.meta.memory import MemoryMeta
from holdfast.meta.sealed import VALUE_MAX_BYTES, RowKeys, SealedMeta
from holdfast.testing.meta_suite import MetaSuite, token
from tests.unit.crypto.chance import FixedRandomness

CHANCE = FixedRandomness("sealed meta")
KEYRING = new_keyring(StoreId(bytes(16)), CHANCE)
KEYS = RowKeys.of(KEYRING, CHANCE)
SECRET = b"a value that nobody else may see"


def sealed(inner: Meta) -> SealedMeta:
    return SealedMeta(inner, KEYS, plain_prefixes=(b"K",))


class TestSealedMeta(MetaSuite):
    @pytest.fixture
    def inner(self) -> Meta:
        return MemoryMeta()

    @pytest.fixture
    def meta(self, inner: Meta) -> Meta:
        return sealed(inner)

    @pytest.fixture
    def peer(self, inner: Meta) -> Meta:
        return SealedMeta(inner, RowKeys.of(KEYRING, CHANCE))

    async def test_values_of_every_size(self, meta: Meta) -> None:
        """The suite's own goes up to what an engine holds, and an envelope takes a little of that."""
        for number, size in enumerate((0, 1, 15, 16, 2000, 4096, 65_536, VALUE_MAX_BYTES)):
            value = FixedRandomness(str(size)).bytes(size)
            await meta.commit([Put(b"v%d" % number, value)], token=token(number))
            assert (await meta.get(b"v%d" % number)).value == value


async def test_the_engine_sees_keys_and_lengths_only() -> None:
    inner = MemoryMeta()
    await sealed(inner).commit([Put(b"Okey", SECRET), Put(b"K", b"the wrapped keyring")], token=token(1))
    seen = await inner.get(b"Okey")
    assert seen.value.find(SECRET[:8]) < 0
    assert len(seen.value) == len(SECRET) + 65
    assert (await inner.get(b"K")).value == b"the wrapped keyring"


async def test_plain_rows_pass_through_every_verb() -> None:
    inner = MemoryMeta()
    meta = sealed(inner)
    await inner.commit([Put(b"Kring", b"plain")], token=token(1))
    assert (await meta.get(b"Kring")).value == b"plain"
    [row] = await meta.get_many([b"Kring"])
    assert row is not None
    assert row.value == b"plain"
    assert (await meta.scan(KeyRange(), limit=10)).entries == (Row(b"Kring", token(1), b"plain"),)


async def test_a_value_moved_to_another_row_is_caught_by_every_verb() -> None:
    inner = MemoryMeta()
    meta = sealed(inner)
    await meta.commit([Put(b"O1", SECRET), Put(b"O2", b"another")], token=token(1))
    stolen = (await inner.get(b"O1")).value
    await inner.commit([Put(b"O2", stolen)], token=token(2))
    assert (await meta.get(b"O1")).value == SECRET
    with pytest.raises(Corrupt):
        await meta.get(b"O2")
    with pytest.raises(Corrupt):
        await meta.get_many([b"O1", b"O2"])
    with pytest.raises(Corrupt):
        await meta.scan(KeyRange(), limit=10)


async def test_every_flipped_byte_is_caught() -> None:
    inner = MemoryMeta()
    meta = sealed(inner)
    await meta.commit([Put(b"O1", SECRET)], token=token(1))
    honest = (await inner.get(b"O1")).value
    for at in range(len(honest)):
        broken = bytearray(honest)
        broken[at] ^= 0x01
        await inner.commit([Put(b"O1", bytes(broken))], token=token(2))
        with pytest.raises(Corrupt):
            await meta.get(b"O1")


async def test_listing_without_values_opens_nothing() -> None:
    inner = MemoryMeta()
    await inner.commit([Put(b"Oa/1", b"not sealed at all"), Put(b"Ob", b"nor this")], token=token(1))
    page = await sealed(inner).scan(KeyRange(), limit=10, fold=Fold(b"/", 0), values=False)
    assert page.entries == (Folded(b"Oa/"), Row(b"Ob", token(1), b""))


async def test_rows_that_are_not_sealed_are_corrupt() -> None:
    inner = MemoryMeta()
    await inner.commit([Put(b"O1", b"planted"), Put(b"O2", b"")], token=token(1))
    for key in (b"O1", b"O2"):
        with pytest.raises(Corrupt):
            await sealed(inner).get(key)


async def test_the_longest_value_and_one_byte_more() -> None:
    meta = sealed(MemoryMeta())
    await meta.commit([Put(b"O1", bytes(VALUE_MAX_BYTES))], token=token(1))
    assert len((await meta.get(b"O1")).value) == VALUE_MAX_BYTES < ROW_VALUE_MAX_BYTES
    with pytest.raises(InvalidRequest, match=str(VALUE_MAX_BYTES)):
        await meta.commit([Put(b"O1", bytes(VALUE_MAX_BYTES + 1))], token=token(1))


async def test_a_commit_is_one_commit_in_order_with_its_expectations() -> None:
    inner = MemoryMeta()
    meta = sealed(inner)
    await meta.commit([Put(b"O1", b"one")], token=token(1))
    changes: list[Change] = [Delete(b"O1"), Put(b"O2", b"two"), Put(b"O2", b"three"), Delete(b"O9")]
    await meta.commit(changes, [HasToken(b"O1", token(1))], token=token(2))
    assert [(row.key, row.value) for row in (await meta.scan(KeyRange(), limit=9)).entries if isinstance(row, Row)] == [
        (b"O2", b"three")
    ]


async def test_a_large_commit_gives_the_loop_back_now_and_then() -> None:
    turns = 0

    async def ticker() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    class Inner(MemoryMeta):
        async def commit(self, *_: object, token: Token) -> None:
            committed.append(turns)

    committed: list[int] = []
    task = asyncio.create_task(ticker())
    await asyncio.sleep(0)
    changes = [Put(b"O%d" % number, bytes(500)) for number in range(COMMIT_CHANGES_MAX_COUNT)]
    before = turns
    await sealed(Inner()).commit(changes, token=token(1))
    task.cancel()
    assert committed[0] - before > 50


async def test_rows_of_a_newer_epoch_make_it_ask_for_the_keyring_once_more() -> None:
    inner = MemoryMeta()
    newer = rotated(KEYRING, CHANCE)
    asked = 0

    async def reload() -> RowKeys:
        nonlocal asked
        asked += 1
        return RowKeys.of(newer, CHANCE)

    other_process = SealedMeta(inner, RowKeys.of(newer, CHANCE))
    await other_process.commit([Put(b"O1", b"one"), Put(b"O2", b"two")], token=token(1))
    for verb in ("get", "get_many", "scan"):
        meta = SealedMeta(inner, KEYS, reload=reload)
        asked = 0
        match verb:
            case "get":
                assert (await meta.get(b"O1")).value == b"one"
            case "get_many":
                assert [row and row.value for row in await meta.get_many([b"O1", b"O3", b"O2"])] == [
                    b"one",
                    None,
                    b"two",
                ]
            case _:
                assert len((await meta.scan(KeyRange(), limit=9)).entries) == 2
        assert asked == 1
        await meta.commit([Put(b"O4", b"sealed under the new epoch")], token=token(2))
        assert (await inner.get(b"O4")).value[1:5] == b"\x02\0\0\0"
        await inner.commit([Delete(b"O4")], token=token(3))


async def test_rows_of_a_retired_epoch_are_corrupt() -> None:
    inner = MemoryMeta()
    await sealed(inner).commit([Put(b"O1", b"one")], token=token(1))
    keys = RowKeys.of(retired(rotated(KEYRING, CHANCE), [1]), CHANCE)

    async def reload() -> RowKeys:
        return keys

    for meta in (SealedMeta(inner, keys), SealedMeta(inner, keys, reload=reload)):
        with pytest.raises(Corrupt):
            await meta.get(b"O1")


async def test_two_processes_read_each_other() -> None:
    inner = MemoryMeta()
    one, two = (SealedMeta(inner, RowKeys.of(KEYRING, CHANCE)) for _ in range(2))
    await one.commit([Put(b"O1", b"from one")], token=token(1))
    await two.commit([Put(b"O2", b"from two")], token=token(1))
    assert (await one.get(b"O2")).value == b"from two"
    assert (await two.get(b"O1")).value == b"from one"
