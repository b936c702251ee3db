"""Sessions, recode, compaction, the clock's chores, and what is remembered across restarts."""

import pytest

from holdfast.core.errors import Full, Unavailable
from holdfast.core.ids import ContentId, DriveId, SessionId
from holdfast.core.limits import GIB
from holdfast.drives.interface import DriveUsage
from holdfast.erasure import Code, copies, erasure
from holdfast.upkeep import recode
from holdfast.upkeep.chores import Compaction, Periodic
from holdfast.upkeep.interface import SESSION_SILENCE_SECONDS, Recoded, SessionBeat
from holdfast.upkeep.progress import SAVE_SECONDS, Record, Saver, load
from holdfast.upkeep.recode import Recoder, RecodeRecord
from holdfast.upkeep.sessions import SessionWatch, Sighting, watch
from holdfast.upkeep.sweep import SweepRecord
from holdfast.upkeep.worker import State, settle
from tests.unit.upkeep.world import World


async def test_a_silent_session_ends_and_a_beating_one_does_not() -> None:
    world = World(1)
    beating = world.new_session()
    worker = SessionWatch(world, world.clock)
    for _ in range(8):
        await worker.work()
        world.clock.jump(1e9)
        world.beats[beating] += 1
        await world.clock.advance(SESSION_SILENCE_SECONDS / 5)
    assert set(world.beats) == {beating}
    assert worker.status() == "1 sessions expired"


async def test_a_new_observer_waits_once_more() -> None:
    world = World(1)
    await SessionWatch(world, world.clock).work()
    await world.clock.advance(SESSION_SILENCE_SECONDS * 2)
    await SessionWatch(world, world.clock).work()
    assert len(world.beats) == 1


def test_watch_forgets_sessions_that_ended() -> None:
    one = SessionId(b"1" * 8)
    seen, silent = watch({one: Sighting(1, 0.0), SessionId(b"2" * 8): Sighting(1, 0.0)}, [SessionBeat(one, 1)], 1e6)
    assert set(seen) == {one}
    assert silent == [SessionBeat(one, 1)]
    seen, silent = watch(seen, [SessionBeat(one, 2)], 2e6)
    assert seen[one] == Sighting(2, 2e6)
    assert silent == []


async def test_recode_changes_everything_once_and_ends() -> None:
    world = World(6)
    for _ in range(5):
        await world.create(copies(2))
    await world.create(erasure(2, 2))
    await recode.order(world, erasure(2, 2), world.clock)
    worker = Recoder(world, world.clock)
    await settle(worker)
    assert {content.code for content in world.living().values()} == {erasure(2, 2)}
    assert len(world.living()) == 6
    assert worker.status() == "5 contents, 1000 bytes recoded"
    assert await worker.work() is State.IDLE


async def test_recode_is_resumed_by_another_process() -> None:
    world = World(6)
    for _ in range(recode.AT_ONCE_MAX_COUNT + 1):
        await world.create(copies(2))
    await recode.order(world, erasure(2, 1), world.clock)
    await Recoder(world, world.clock).work()
    assert {content.code for content in world.living().values()} == {erasure(2, 1), copies(2)}
    worker = Recoder(world, world.clock)
    await settle(worker)
    assert {content.code for content in world.living().values()} == {erasure(2, 1)}
    assert RecodeRecord.decode(world.progress["recode"]).recoded == recode.AT_ONCE_MAX_COUNT + 1


async def test_recode_passes_over_what_cannot_be_read() -> None:
    world = World(6)
    stuck = await world.create(copies(2))
    for _ in range(3):
        await world.create(copies(2))
    wrote = world.recode

    async def failing(content: ContentId, code: Code) -> Recoded:
        if content == stuck:
            raise Unavailable("not now")
        return await wrote(content, code)

    world.recode = failing  # type: ignore[method-assign]
    await recode.order(world, copies(3), world.clock)
    worker = Recoder(world, world.clock)
    await settle(worker)
    assert [content.code for content in world.living().values()].count(copies(3)) == 3
    assert "1 unreadable" in worker.status()


async def test_a_recode_waits_for_room() -> None:
    """On a full store it passed over everything, and the order was done with."""
    world = World(6)
    for _ in range(3):
        await world.create(copies(2))
    wrote = world.recode

    async def full(content: ContentId, code: Code) -> Recoded:
        raise Full

    world.recode = full  # type: ignore[method-assign]
    await recode.order(world, copies(3), world.clock)
    worker = Recoder(world, world.clock)
    with pytest.raises(Full):
        await settle(worker)
    world.recode = wrote  # type: ignore[method-assign]
    await settle(worker)
    assert {content.code for content in world.living().values()} == {copies(3)}


async def test_compaction_goes_on_while_there_is_more() -> None:
    class Heap:
        id = DriveId(b"\xab" * 16)
        left = 3
        free = 50 * GIB
        thoroughly = False

        async def usage(self) -> DriveUsage:
            return DriveUsage(total=100 * GIB, free=self.free, live=0, dead=0, fragments=0)

        async def compact(self, *, thoroughly: bool) -> bool:
            self.left -= 1
            self.thoroughly = thoroughly
            return self.left > 0

    heap = Heap()
    worker = Compaction(heap, World(1).clock)
    await settle(worker)
    assert (heap.left, heap.thoroughly) == (0, False)
    assert worker.name == "compact abababab"
    unhurried = worker.tranquility
    heap.free = 1 * GIB
    await settle(worker)
    assert heap.thoroughly
    assert worker.tranquility < unhurried


async def test_periodic_calls_at_once() -> None:
    calls = []

    async def call() -> None:
        calls.append(1)

    worker = Periodic("checkpoint", call, 60.0, World(1).clock)
    assert await worker.work() is State.IDLE
    assert len(calls) == 1
    assert worker.status() == "done 1 times"


@pytest.mark.parametrize("data", [b"", b"\xc1", b"nonsense", b"\x91\x02", b"\x92\x01\xa1x"])
async def test_progress_that_cannot_be_read_is_a_new_start(data: bytes) -> None:
    world = World(1)
    world.progress["sweep"] = data
    assert await load(world, "sweep", SweepRecord) == SweepRecord()
    assert await load(world, "missing", SweepRecord) == SweepRecord()


def test_progress_comes_back_as_it_was() -> None:
    record = SweepRecord(block=b"b" * 32, index=3, rested=1.5, suspects={b"c" * 16: 2.5})
    assert SweepRecord.decode(record.encode()) == record


async def test_progress_is_saved_seldom() -> None:
    world = World(1)
    saver = Saver(world, "name", world.clock)
    await saver.keep_seldom(Record())
    assert not world.progress
    await world.clock.advance(SAVE_SECONDS)
    await saver.keep_seldom(Record())
    assert set(world.progress) == {"name"}


async def test_a_full_store_loses_progress_and_not_orders() -> None:
    world = World(1)

    async def full(name: str, data: bytes) -> None:
        raise Full("no room")

    world.save_progress = full  # type: ignore[method-assign]
    saver = Saver(world, "name", world.clock)
    await saver.keep(Record())
    with pytest.raises(Full):
        await saver.save(Record())
