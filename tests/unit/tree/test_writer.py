"""Writing a tree: bounded, ordered, and clean however it ends."""

import asyncio
import gc

import pytest

from holdfast.core.errors import Full, InvalidRequest
from holdfast.core.limits import BLOCK_MAX_BYTES
from holdfast.erasure import CodedBlock
from holdfast.tree import BlockStore, SealingThreads, TreeWriter, make_position, read, split_position, walk
from holdfast.tree.threads import BlockBudget
from tests.unit.crypto.chance import FixedRandomness
from tests.unit.tree.stores import DictStore, build

DATA = FixedRandomness("writer").bytes(50_000)


class FailingStore(DictStore):
    """Fails one put."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    async def put(self, block: CodedBlock, position: int) -> None:
        if position == self.at:
            raise Full("no space left")
        await super().put(block, position)


class StuckStore(DictStore):
    """Puts wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def put(self, block: CodedBlock, position: int) -> None:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await self.gate.wait()
        finally:
            self.in_flight -= 1
        await super().put(block, position)


def fits_the_protocol(store: DictStore) -> BlockStore:
    return store


@pytest.mark.parametrize(
    ("blocks", "depth", "nodes"),
    [(0, 0, 0), (1, 0, 0), (2, 1, 1), (3, 1, 1), (4, 2, 3), (9, 2, 4), (10, 3, 4 + 1 + 1 + 1), (27, 3, 13)],
)
async def test_shape(threads: SealingThreads, blocks: int, depth: int, nodes: int) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[: blocks * 100], block=100, fanout=3)
    assert root.depth == depth
    assert len(store.blocks) == max(1, blocks) + nodes
    assert root.size == blocks * 100


async def test_positions_say_level_and_start(threads: SealingThreads) -> None:
    store = DictStore()
    root = await build(store, threads, DATA[:1000], block=100, fanout=3)
    by_level: dict[int, list[int]] = {}
    for position in store.positions:
        level, start = split_position(position)
        assert make_position(level, start) == position
        by_level.setdefault(level, []).append(start)
    assert sorted(by_level[0]) == list(range(0, 1000, 100))
    assert sorted(by_level[1]) == [0, 300, 600, 900]
    assert sorted(by_level[2]) == [0, 900]
    assert by_level[3] == [0]
    assert store.positions[make_position(3, 0)] == root.ref


async def test_blocks_in_flight_are_bounded(threads: SealingThreads) -> None:
    store = StuckStore()
    async with TreeWriter(store, threads, in_flight=3) as writer:
        for _ in range(3):
            await writer.write(DATA[:1000])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await writer.write(DATA[:1000])
        assert store.most_in_flight == 3
        assert writer.size == 3000
        store.gate.set()
        await writer.write(DATA[:1000])
        root = await writer.finish()
    assert root.size == 4000
    assert b"".join([bytes(piece) async for piece in read(store, threads, root)]) == DATA[:1000] * 4


async def test_the_pipeline_runs_blocks_side_by_side(threads: SealingThreads) -> None:
    store = DictStore()
    await build(store, threads, DATA, block=1000, fanout=10, in_flight=4)
    assert 1 < store.most_in_flight <= 4


async def test_blocks_that_are_written_together_are_in_the_tree_one_after_the_other(threads: SealingThreads) -> None:
    store = StuckStore()
    sealed = asyncio.Event()
    async with TreeWriter(store, threads, fanout=3, in_flight=3) as writer:
        await writer.write_together((DATA[:1000], DATA[1000:3000], DATA[3000:3100]), sealed.set)
        await sealed.wait()
        await asyncio.sleep(0)
        assert store.in_flight == 3, "all go to the drives at once"
        assert threads.blocks.taken == 3100
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await writer.write_together((DATA[3100:3200], DATA[3200:3300]))
        store.gate.set()
        # Who gave up waiting took nothing with it.
        await writer.write_together((DATA[3100:3200], DATA[3200:4000], DATA[4000:4001]))
        root = await writer.finish()
    assert b"".join([bytes(piece) async for piece in read(store, threads, root)]) == DATA[:4001]


async def test_a_block_too_long_is_refused_with_those_beside_it(threads: SealingThreads) -> None:
    async with TreeWriter(DictStore(), threads) as writer:
        for blocks in ((DATA[:10], b""), (DATA[:10], bytes(BLOCK_MAX_BYTES + 1))):
            with pytest.raises(InvalidRequest):
                await writer.write_together(blocks)
        assert writer.size == 0


async def test_writers_that_want_several_places_at_once_do_not_wait_for_each_other(threads: SealingThreads) -> None:
    """Each has room in the budget for the first of its blocks, and not for all: whoever took a part would hang."""
    threads.blocks = BlockBudget(total=3000, ahead=0)

    async def upload() -> int:
        async with TreeWriter(DictStore(), threads) as writer:
            for at in range(0, 20_000, 2000):
                await writer.write_together((DATA[at : at + 1000], DATA[at + 1000 : at + 2000]))
            return (await writer.finish()).size

    async with asyncio.timeout(60):
        assert await asyncio.gather(*(upload() for _ in range(4))) == [20_000] * 4


async def test_a_buffer_is_given_back_once_and_may_be_used_again(threads: SealingThreads) -> None:
    """Blocks are cut into two buffers in turn, as an upload does."""
    store = StuckStore()
    store.gate.set()
    free: asyncio.Queue[bytearray] = asyncio.Queue()
    for _ in range(2):
        free.put_nowait(bytearray(1000))
    async with TreeWriter(store, threads, fanout=4) as writer:
        for at in range(0, len(DATA), 1000):
            buffer = await free.get()
            buffer[:] = DATA[at : at + 1000]
            await writer.write(memoryview(buffer), lambda buffer=buffer: free.put_nowait(buffer))  # type: ignore[misc]
        root = await writer.finish()
    assert free.qsize() == 2
    assert b"".join([bytes(piece) async for piece in read(store, threads, root)]) == DATA


@pytest.mark.parametrize("level", [0, 1, 2])
async def test_a_failure_is_raised_and_leaves_nothing_running(threads: SealingThreads, level: int) -> None:
    store = FailingStore(make_position(level, 0))
    before = asyncio.all_tasks()
    given_back = []
    writer = TreeWriter(store, threads, fanout=3)

    async def upload() -> None:
        async with writer:
            for at in range(0, 3000, 100):
                await writer.write(DATA[at : at + 100], lambda: given_back.append(1))
            await writer.finish()

    with pytest.raises(Full):
        await upload()
    assert asyncio.all_tasks() == before
    assert len(given_back) == writer.size // 100


async def test_failures_that_nobody_waits_for_are_not_shouted_about(threads: SealingThreads) -> None:
    class Broken(DictStore):
        async def put(self, block: CodedBlock, position: int) -> None:
            raise Full("no space left")

    shouted: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: shouted.append(context))
    async with TreeWriter(Broken(), threads) as writer:
        for _ in range(4):
            await writer.write(DATA[:100])
        await asyncio.sleep(0.05)
    del writer
    gc.collect()
    assert not shouted


async def test_after_a_failure_nothing_more_is_taken(threads: SealingThreads) -> None:
    store = FailingStore(make_position(0, 0))
    async with TreeWriter(store, threads) as writer:
        await writer.write(DATA[:100])
        await asyncio.sleep(0.05)
        for _ in range(10):
            with pytest.raises(Full):
                await writer.write(DATA[:100])
        with pytest.raises(Full):
            await writer.finish()
        assert writer.size == 100


async def test_abort_names_every_block_that_was_stored(threads: SealingThreads) -> None:
    store = DictStore()
    writer = TreeWriter(store, threads, fanout=3)
    for at in range(0, 3200, 100):
        await writer.write(DATA[at : at + 100])
    await asyncio.sleep(0.1)
    roots = await writer.abort()
    assert len(roots) < len(store.blocks)
    walked = [block.ref for root in roots async for block in walk(store, threads, root)]
    assert {ref.id for ref in walked} == set(store.blocks)
    assert len(walked) == len(store.blocks)


async def test_abort_in_the_middle_gives_buffers_back_and_leaves_no_task(threads: SealingThreads) -> None:
    store = StuckStore()
    before = asyncio.all_tasks()
    given_back = []
    writer = TreeWriter(store, threads)
    for number in range(4):
        await writer.write(DATA[:1000], lambda number=number: given_back.append(number))  # type: ignore[misc]
    assert await writer.abort() == ()
    assert sorted(given_back) == [0, 1, 2, 3]
    assert store.in_flight == 0
    assert asyncio.all_tasks() == before


async def test_cancelled_while_finishing(threads: SealingThreads) -> None:
    store = StuckStore()
    before = asyncio.all_tasks()

    async def upload() -> None:
        async with TreeWriter(store, threads, fanout=2) as writer:
            for _ in range(4):
                await writer.write(DATA[:1000])
            await writer.finish()

    task = asyncio.create_task(upload())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == before


async def test_abort_after_finish_touches_nothing(threads: SealingThreads) -> None:
    store = DictStore()
    writer = TreeWriter(store, threads)
    await writer.write(DATA[:100])
    await writer.finish()
    assert await writer.abort() == ()


async def test_blocks_out_of_bounds_are_refused(threads: SealingThreads) -> None:
    async with TreeWriter(DictStore(), threads) as writer:
        for wrong in (b"", bytes(BLOCK_MAX_BYTES + 1)):
            with pytest.raises(InvalidRequest):
                await writer.write(wrong)


async def test_every_sealing_has_a_key_of_its_own(threads: SealingThreads) -> None:
    store = DictStore()
    for _ in range(3):
        await build(store, threads, DATA[:1000] * 5, block=1000, fanout=2)
    assert len(store.blocks) == 3 * (5 + 3 + 2 + 1)
