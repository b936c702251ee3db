"""Walking a tree: every block, children first, with a key that reads nothing."""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from holdfast.core.errors import Corrupt, NotFound
from holdfast.core.ids import Buffer
from holdfast.crypto.blocks import BlockSealer
from holdfast.erasure import BlockRef
from holdfast.tree import SealingThreads, WalkRoot, locate, make_position, read, split_position, walk
from holdfast.tree.entry import RootEntry
from holdfast.tree.node import open_node
from tests.unit.crypto.chance import FixedRandomness
from tests.unit.tree.stores import DictStore, build

DATA = FixedRandomness("walker").bytes(5000)

T = TypeVar("T")


class VisitingStore(DictStore):
    """Opens every block in a thread of its own, as one does when a visit was left behind in another."""

    async def get(self, ref: BlockRef, then: Callable[[Buffer], T]) -> T:
        block = self.blocks[ref.id]
        result: list[T] = []
        thread = threading.Thread(target=lambda: result.append(then(block)))
        thread.start()
        await asyncio.to_thread(thread.join)
        return result[0]


@pytest.mark.parametrize("blocks", [0, 1, 2, 3, 4, 9, 10, 28])
async def test_every_block_once_children_first(threads: SealingThreads, blocks: int) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[: blocks * 100], block=100, fanout=3)
    walked = [block async for block in walk(store, threads, root.walk_root())]
    assert {block.position: block.ref for block in walked} == store.positions
    assert len(walked) == len(store.positions)
    assert all(block.unread is None for block in walked)
    seen: set[int] = set()
    for block in walked:
        level, start = split_position(block.position)
        if level:
            below = {at for at in store.positions if split_position(at)[0] == level - 1}
            within = {at for at in below if start <= split_position(at)[1] < start + block.length}
            assert within <= seen
        seen.add(block.position)
    assert walked[-1].ref == root.ref
    assert walked[-1].length == root.size


async def test_data_blocks_are_never_fetched(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA, block=100, fanout=4)
    data_blocks = {ref.id for position, ref in store.positions.items() if not split_position(position)[0]}
    for block_id in data_blocks:
        del store.blocks[block_id]
    assert len([block async for block in walk(store, threads, root.walk_root())]) == len(store.positions)
    assert not {ref.id for ref in store.gets} & data_blocks


async def test_who_walks_cannot_read(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:300], block=100, fanout=3)
    walker = root.walk_root()
    sealer = BlockSealer()
    sealed = store.blocks[walker.ref.id]
    node = open_node(sealer, walker.key, sealed, level=1, size=300)
    for key in (walker.key, bytes(32)):
        with pytest.raises(Corrupt):
            node.keys(key)
    keys = node.keys(root.key)
    data = store.blocks[node.ref(0).id]
    assert sealer.open(keys[:32], data, 100) == DATA[:100]
    with pytest.raises(Corrupt):
        sealer.open(walker.key, data, 100)
    # Nothing that the walk part holds in the clear is a key of a data block.
    plain = node._walk_part
    assert all(keys[at : at + 32] not in plain for at in range(0, len(keys), 32))


async def test_an_unreadable_node_is_named_and_the_walk_goes_on(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:2700], block=100, fanout=3)
    lost = make_position(1, 900)
    broken = make_position(2, 1800)
    del store.blocks[store.positions[lost].id]
    block_id = store.positions[broken].id
    store.blocks[block_id] = store.blocks[block_id][:-1] + b"\0"
    walked = {block.position: block async for block in walk(store, threads, root.walk_root())}
    assert isinstance(walked[lost].unread, NotFound)
    assert isinstance(walked[broken].unread, Corrupt)
    above = {make_position(2, 900), make_position(3, 0)}
    assert {at for at, block in walked.items() if not block.whole} == {lost, broken, *above}
    missing = set(store.positions) - set(walked)
    assert {split_position(at) for at in missing} == (
        {(0, start) for start in (900, 1000, 1100)}
        | {(0, start) for start in range(1800, 2700, 100)}
        | {(1, start) for start in range(1800, 2700, 300)}
    )


async def test_an_unreadable_root_is_all_that_is_walked(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:900], block=100, fanout=3)
    store.blocks.clear()
    [only] = [block async for block in walk(store, threads, root.walk_root())]
    assert only.ref == root.ref
    assert isinstance(only.unread, NotFound)


async def test_locate_finds_every_block_by_its_position(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:2000], block=100, fanout=3)
    for position, ref in store.positions.items():
        assert await locate(store, threads, root.walk_root(), position) == ref
    for level, start in [(0, 50), (0, 2000), (1, 100), (2, 300), (3, 1), (root.depth + 1, 0), (200, 0), (0, 2**56 - 1)]:
        with pytest.raises(NotFound):
            await locate(store, threads, root.walk_root(), make_position(level, start))


async def test_no_two_threads_open_with_one_sealer(threads: SealingThreads, monkeypatch: pytest.MonkeyPatch) -> None:
    """A visit that was left behind may still be opening a node when the next one begins."""
    store = VisitingStore()
    root = await build(store, threads, DATA[:900], block=100, fanout=3)
    users: list[tuple[BlockSealer, threading.Thread]] = []
    opened = BlockSealer.open

    def noted(sealer: BlockSealer, key: bytes, sealed: Buffer, length: int) -> bytes:
        users.append((sealer, threading.current_thread()))
        return opened(sealer, key, sealed, length)

    monkeypatch.setattr(BlockSealer, "open", noted)
    assert len([block async for block in walk(store, threads, root.walk_root())]) == len(store.positions)
    await locate(store, threads, root.walk_root(), make_position(0, 500))
    assert b"".join([bytes(piece) async for piece in read(store, threads, root)]) == DATA[:900]
    assert len(users) == 4 + 2 + 4 + 9
    assert len({id(sealer) for sealer, _ in users}) == len({id(thread) for _, thread in users}) == len(users)


async def test_a_deletion_along_the_walk_can_be_taken_up_again(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:2700], block=100, fanout=3)
    rounds = 0
    while store.blocks:
        rounds += 1
        deleted = 0
        async for block in walk(store, threads, root.walk_root()):
            if store.blocks.pop(block.ref.id, None) is not None:
                deleted += 1
            if deleted == 7:
                break
        assert deleted
    assert rounds == 6


async def test_a_walk_key_of_another_tree_opens_nothing(threads: SealingThreads) -> None:
    one, two = DictStore(), DictStore()
    root = await build(one, threads, DATA[:900], block=100, fanout=3)
    other = await build(two, threads, DATA[:900], block=100, fanout=3)

    def mixed(root: RootEntry, key: bytes) -> WalkRoot:
        return WalkRoot(root.ref, root.size, root.depth, key)

    for key in (other.walk_root().key, root.key):
        [only] = [block async for block in walk(one, threads, mixed(root, key))]
        assert isinstance(only.unread, Corrupt)
