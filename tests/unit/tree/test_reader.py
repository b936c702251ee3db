"""Reading a tree gives the bytes that were written, whatever the cut, or raises."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt, InvalidRequest, NotFound
from holdfast.core.ids import Buffer
from holdfast.core.limits import MIB
from holdfast.core.ranges import ByteRange
from holdfast.erasure import BlockRef, erasure
from holdfast.tree import Extent, RootEntry, SealingThreads, read, read_extents
from tests.unit.crypto.chance import FixedRandomness
from tests.unit.tree.stores import DictStore, T, build, sealing_threads


def noise(seed: int, count: int) -> bytes:
    return FixedRandomness(str(seed)).bytes(count)


DATA = noise(1, 100_000) + bytes(50_000) + b"abc" * 20_000
THREADS = sealing_threads()


async def whole(store: DictStore, root: RootEntry, range: ByteRange | None = None, ahead: int = 4) -> bytes:
    async with aclosing(read(store, THREADS, root, range, ahead=ahead)) as pieces:
        return b"".join([bytes(piece) async for piece in pieces])


@settings(deadline=None)
@given(
    size=st.one_of(st.integers(0, 3000), st.integers(0, len(DATA))),
    block=st.sampled_from([64, 500, 1024, 70_000]),
    fanout=st.integers(2, 9),
    ahead=st.integers(0, 5),
    data=st.data(),
)
def test_any_range_of_any_tree(size: int, block: int, fanout: int, ahead: int, data: st.DataObject) -> None:
    size = min(size, block * 200)

    async def check() -> None:
        store = DictStore()
        root = await build(store, THREADS, DATA[:size], block=block, fanout=fanout)
        assert root.size == size
        assert await whole(store, root) == DATA[:size]
        if size:
            start = data.draw(st.integers(0, size - 1))
            end = data.draw(st.integers(start + 1, size))
            assert await whole(store, root, ByteRange(start, end), ahead) == DATA[start:end]

    asyncio.run(check())


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 4000)), max_size=6), st.data())
def test_extents_read_as_one(cuts: list[tuple[int, int]], data: st.DataObject) -> None:
    async def check() -> None:
        store = DictStore()
        extents, expected = [], b""
        for number, (skip, length) in enumerate(cuts):
            plain = DATA[number * 1000 : number * 1000 + 8000]
            root = await build(store, THREADS, plain, block=300, fanout=4)
            extents.append(Extent(root, skip, length))
            expected += plain[skip : skip + length]
        pieces = [bytes(piece) async for piece in read_extents(store, THREADS, extents)]
        assert b"".join(pieces) == expected
        if expected:
            start = data.draw(st.integers(0, len(expected) - 1))
            end = data.draw(st.integers(start + 1, len(expected)))
            pieces = [bytes(piece) async for piece in read_extents(store, THREADS, extents, ByteRange(start, end))]
            assert b"".join(pieces) == expected[start:end]

    asyncio.run(check())


async def test_a_small_object_is_one_block_and_one_get_and_no_task(threads: SealingThreads) -> None:
    class Store(DictStore):
        async def get(self, ref: BlockRef, then: Callable[[Buffer], T]) -> T:
            assert asyncio.current_task() is reader
            return await super().get(ref, then)

    store, reader = Store(), asyncio.current_task()
    root = await build(store, threads, b"hello", block=MIB, fanout=1024)
    assert root.depth == 0
    assert len(store.blocks) == 1
    assert await whole(store, root) == b"hello"
    assert len(store.gets) == 1


async def test_nothing_is_a_tree_too(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, b"", block=MIB, fanout=1024)
    assert (root.size, root.depth) == (0, 0)
    assert await whole(store, root) == b""
    assert not store.gets


async def test_blocks_of_a_mebibyte_erasure_coded(threads: SealingThreads) -> None:
    store = DictStore(erasure(4, 2))
    data = noise(2, 5 * MIB + 12345)
    root = await build(store, threads, data, block=MIB, fanout=1024)
    assert root.depth == 1
    assert await whole(store, root) == data
    assert await whole(store, root, ByteRange(MIB - 1, 3 * MIB + 1)) == data[MIB - 1 : 3 * MIB + 1]


async def test_a_range_gets_no_block_that_it_does_not_need(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:100_000], block=1000, fanout=10)
    assert root.depth == 2
    await whole(store, root, ByteRange(55_500, 56_500))
    assert len(store.gets) == 1 + 1 + 2


async def test_ranges_beyond_the_end_are_refused(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, b"hello", block=MIB, fanout=1024)
    with pytest.raises(InvalidRequest):
        await whole(store, root, ByteRange(0, 6))
    with pytest.raises(InvalidRequest):
        Extent(root, 3, 3)


@pytest.mark.parametrize("block", [200_000, MIB + 1])
async def test_pieces_stay_valid_while_they_are_held(threads: SealingThreads, block: int) -> None:
    store = DictStore()
    data = noise(3, 6 * block)
    root = await build(store, threads, data, block=block, fanout=4)
    held = [piece async for piece in read(store, threads, root)]
    assert b"".join(held) == data


async def test_what_a_server_can_send_in_one_message_needs_no_copy_for_it(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, noise(3, 3 * MIB), block=MIB, fanout=4)
    assert {type(piece) async for piece in read(store, threads, root)} == {bytes}


class SlowStore(DictStore):
    """Gets that wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.slow = False
        self.getting = 0

    async def get(self, ref: BlockRef, then: Callable[[Buffer], T]) -> T:
        self.getting += 1
        try:
            if self.slow and len(self.gets) > 2:
                await asyncio.Event().wait()
            return await super().get(ref, then)
        finally:
            self.getting -= 1


async def test_leaving_early_leaves_no_task(threads: SealingThreads) -> None:
    store = SlowStore()
    root = await build(store, threads, DATA[:20_000], block=1000, fanout=10)
    before = asyncio.all_tasks()
    store.slow = True
    async with aclosing(read(store, threads, root)) as pieces:
        async for _ in pieces:
            break
    assert store.getting == 0
    assert asyncio.all_tasks() == before


async def test_cancelling_a_read_leaves_no_task(threads: SealingThreads) -> None:
    store = SlowStore()
    root = await build(store, threads, DATA[:20_000], block=1000, fanout=10)
    before = asyncio.all_tasks()
    store.slow = True
    task = asyncio.create_task(whole(store, root))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert store.getting == 0
    assert asyncio.all_tasks() == before


async def test_a_bounded_number_of_blocks_is_fetched_ahead(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:50_000], block=1000, fanout=100)
    async with aclosing(read(store, threads, root, ahead=3)) as pieces:
        async for _ in pieces:
            await asyncio.sleep(0.01)
            assert len(store.gets) <= 1 + 4
            break


async def test_a_missing_block_raises_what_the_store_raised(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:20_000], block=1000, fanout=10)
    before = asyncio.all_tasks()
    del store.blocks[store.positions[5000].id]
    with pytest.raises(NotFound):
        await whole(store, root)
    assert asyncio.all_tasks() == before


async def test_every_swap_of_two_blocks_is_caught(threads: SealingThreads) -> None:
    """A store that answers for one ref with another block, leaf or node, of the same or another length."""
    store = DictStore()
    root = await build(store, threads, DATA[:9000], block=1000, fanout=3)
    honest = dict(store.blocks)
    assert await whole(store, root) == DATA[:9000]
    for one in honest:
        for other in honest:
            if one == other:
                continue
            store.blocks = {**honest, one: honest[other]}
            with pytest.raises(Corrupt):
                await whole(store, root)


async def test_every_cut_and_every_flipped_byte_of_every_block_is_caught(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:900], block=300, fanout=2)
    honest = dict(store.blocks)
    for block, sealed in honest.items():
        broken = [sealed[:at] for at in range(0, len(sealed), 7)] + [sealed + bytes(1), sealed + bytes(512)]
        for at in range(len(sealed)):
            flipped = bytearray(sealed)
            flipped[at] ^= 0x10
            broken.append(bytes(flipped))
        for wrong in broken:
            store.blocks = {**honest, block: wrong}
            with pytest.raises(Corrupt):
                await whole(store, root)


async def test_an_older_block_of_the_same_place_is_caught(threads: SealingThreads) -> None:
    old, new = DictStore(), DictStore()
    await build(old, threads, DATA[:9000], block=1000, fanout=3)
    root = await build(new, threads, DATA[1:9001], block=1000, fanout=3)
    honest = dict(new.blocks)
    for position, ref in new.positions.items():
        replayed = old.blocks[old.positions[position].id]
        assert len(replayed) == len(honest[ref.id])
        new.blocks = {**honest, ref.id: replayed}
        with pytest.raises(Corrupt):
            await whole(new, root)


async def test_every_lie_in_the_root_is_caught(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:9000], block=1000, fanout=3)
    small = await build(store, threads, DATA[:1000], block=1000, fanout=3)
    lies = [
        replace(root, size=root.size - 1),
        replace(root, size=root.size + 1),
        replace(root, depth=root.depth - 1),
        replace(root, depth=root.depth + 1),
        replace(root, depth=0),
        replace(root, key=bytes(32)),
        replace(root, key=root.walk_root().key),
        replace(root, ref=small.ref),
        replace(root, ref=msgspec.structs.replace(root.ref, length=root.ref.length + 1)),
        replace(small, size=2**50),
        replace(small, size=999),
        replace(small, size=1001),
        replace(small, depth=1),
        replace(small, key=root.key),
    ]
    for lie in lies:
        with pytest.raises(Corrupt):
            await whole(store, lie)


async def test_trees_written_and_read_at_once_share_threads() -> None:
    async def one(number: int) -> None:
        store, data = DictStore(), noise(number, 300_000)
        root = await build(store, THREADS, data, block=70_000, fanout=3)
        assert await whole(store, root) == data

    await asyncio.gather(*(one(number) for number in range(8)))
