"""One block from its drives: data fragments first, whatever else is needed after that.

Order of asking:
1. the homes of the newest layout: data, then parity; drives that are away or slow last;
2. when a home has no fragment, or no good one, the home of that fragment in an older live layout;
3. when all those are exhausted, every attached drive is asked which fragments it holds (handoffs are found so).

Before all that, in one visit to a thread, the homes of the first k are asked for what they have in memory: if that is
all of it, the block is checked, joined and handed over there and then. If not, and the block is large, one more visit,
to a thread that may wait for disks, has all of them fetch the rest at once, and does the same. Data fragments are read
to where they belong in the block. When a disk is late, or anything is wrong, the visit is left behind.

Then fragments are asked for until k are here. One that fails is made up for at once; when some are late, one more is
asked for, and again after each such delay. As soon as k are here they are checked and joined in one go, off the event
loop.

Rules: a byte reaches the caller only if its fragment, and every piece computed from others, is what the block's id
commits to. Nothing is left running when `run` is over.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct

from holdfast.cluster.latency import Latency
from holdfast.cluster.patience import PatientThreads
from holdfast.cluster.proof import prove
from holdfast.cluster.slow import SlowDrives
from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, HoldfastError, NotEnoughFragments, NotFound, Unavailable
from holdfast.core.ids import Buffer, DriveId
from holdfast.core.limits import KIB
from holdfast.drives.interface import Drive, FragmentKey, FragmentPart
from holdfast.erasure import BlockRef, Room

T = TypeVar("T")
S = TypeVar("S")

Parts = dict[int, tuple[DriveId, FragmentPart]]
"""By index, fragments that are here, and where they came from."""

# A read that is not done by then is given up.
READ_TIMEOUT_SECONDS = 30.0

# A drive that lost against a hedge is asked last for so long: the next reads do not wait for it in turn.
SLOW_READER_SECONDS = 1.0

# In place of an index: the task asks what a drive holds.
NO_FRAGMENT = -1

# Blocks up to this length are checked on the event loop: the hop to a thread costs more than the hashing, and the loop
# is kept from others for less than 0.2 ms.
INLINE_MAX_BYTES = 256 * KIB


class Damage(Struct, frozen=True):
    """A fragment that is not as it should be, found while reading."""

    index: int
    drive: DriveId | None
    """Where the bad one lies; None when it was not found anywhere it was looked for."""
    reason: str


@dataclass(frozen=True, slots=True)
class _Verdict(Generic[T]):
    """Of some parts: those that are bad, and why; the result, if the others were enough."""

    bad: Mapping[int, str]
    result: tuple[T] | None


class Read:
    """One read in progress. `damage` says, once it is over, what was found wrong."""

    def __init__(
        self,
        ref: BlockRef,
        homes: list[list[DriveId]],
        drives: Mapping[DriveId, Drive],
        slow: SlowDrives,
        latency: Latency,
        clock: Clock,
        executor: Executor | None,
        patient: PatientThreads,
    ) -> None:
        """`homes` are, for each fragment, the drives to try, in order."""
        self._ref = ref
        self._drives = drives
        self._slow = slow
        self._latency = latency
        self._clock = clock
        self._executor = executor
        self._patient = patient
        self._later = [deque(places) for places in homes]
        self._parts: Parts = {}
        self._room: Room | None = None
        self._bad: dict[tuple[int, DriveId], str] = {}
        self._absent: dict[int, set[DriveId]] = {}
        self._silent: set[DriveId] = set()
        self._tried: set[tuple[int, DriveId]] = set()
        self._pending: dict[asyncio.Task[None], tuple[int, DriveId]] = {}
        self._searched = False
        self._is_late = False
        self._was_hedged = False
        self._timer: asyncio.Task[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._queue: deque[tuple[int, DriveId]] = deque()
        for index in sorted(range(len(homes)), key=self._reluctance):
            self._try_next_place(index)

    async def run(self, then: Callable[[Buffer], T]) -> T:
        """`then` of the sealed block. Raises NotEnoughFragments, Corrupt, and what `then` raises."""
        try:
            self._parts, verdict = await self._visit(partial(self._glance, then))
            if verdict is None and self._ref.length > INLINE_MAX_BYTES:
                verdict = await self._stay(then)
            while True:
                if verdict is not None:
                    for index, reason in verdict.bad.items():
                        drive, _ = self._parts.pop(index)
                        self._bad[index, drive] = reason
                        self._tried.add((index, drive))
                        self._try_next_place(index, at_once=True)
                    if verdict.result is not None:
                        return verdict.result[0]
                await self._collect()
                # Late fragments may arrive while the thread looks at these.
                verdict = await self._visit(partial(self._judge, dict(self._parts), self._room, then))
        finally:
            await self._stop()

    @property
    def damage(self) -> list[Damage]:
        if not self._parts and not self._bad and not self._silent:
            # So a block looks that was deleted while it was looked for; and of nothing nothing can be rebuilt.
            return []
        found = [Damage(index, drive, reason) for (index, drive), reason in self._bad.items()]
        lacking = [
            Damage(index, None, "not where it belongs")
            for index in self._absent
            if index not in self._parts and not any(bad == index for bad, _ in self._bad)
        ]
        return found + lacking

    def _reluctance(self, index: int) -> tuple[bool, int]:
        places = self._later[index]
        return not places or places[0] not in self._drives or self._slow.is_slow(places[0]), index

    def _try_next_place(self, index: int, *, at_once: bool = False) -> None:
        """Queue the next drive where fragment `index` may be."""
        if self._later[index]:
            place = index, self._later[index].popleft()
            if at_once:
                self._queue.appendleft(place)
            else:
                self._queue.append(place)

    async def _collect(self) -> None:
        """Wait for k fragments, keeping k on their way."""
        k = self._ref.code.k
        while len(self._parts) < k:
            while len(self._parts.keys() | self._on_their_way()) < k and self._ask():
                pass
            if self._timer is None:
                # Fragments in the page cache are here after one turn of the loop, and then nothing need be timed.
                await asyncio.sleep(0)
                if len(self._parts) >= k:
                    return
                self._timer = asyncio.ensure_future(self._pace())
            if self._is_late or (self._searched and not self._pending):
                raise self._failure()
            if not self._pending:
                self._search()
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake

    def _on_their_way(self) -> set[int]:
        return {index for index, _ in self._pending.values() if index != NO_FRAGMENT}

    def _ask(self) -> bool:
        """Ask for the next fragment in the queue; False when there is none."""
        while self._queue:
            index, drive = self._queue.popleft()
            if index in self._parts or (index, drive) in self._tried:
                continue
            self._tried.add((index, drive))
            attached = self._drives.get(drive)
            if attached is None:
                self._silent.add(drive)
                self._try_next_place(index, at_once=True)
                continue
            self._start(self._fetch(index, attached), index, drive)
            return True
        return False

    def _start(self, coroutine: Coroutine[None, None, None], index: int, drive: DriveId) -> None:
        task = asyncio.ensure_future(coroutine)
        self._pending[task] = index, drive
        task.add_done_callback(self._ended)

    async def _fetch(self, index: int, attached: Drive) -> None:
        drive, began = attached.id, self._clock.monotonic()
        try:
            part = await attached.get(FragmentKey(self._ref.id, index))
        except NotFound:
            self._absent.setdefault(index, set()).add(drive)
        except Corrupt as error:
            self._bad[index, drive] = str(error)
        except Unavailable:
            self._silent.add(drive)
        else:
            self._latency.observe(self._clock.monotonic() - began)
            self._parts.setdefault(index, (drive, part))
            return
        self._try_next_place(index, at_once=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        index, _ = self._pending.pop(task)
        if self._wake is None or self._wake.done():
            return
        if not task.cancelled() and (error := task.exception()) is not None:
            self._wake.set_exception(error)
        elif index not in self._parts or len(self._parts) >= self._ref.code.k or not self._pending:
            self._wake.set_result(None)

    async def _pace(self) -> None:
        """Ask for one more whenever those on their way are late; give up in the end."""
        deadline = self._clock.monotonic() + READ_TIMEOUT_SECONDS
        while self._queue and self._clock.monotonic() < deadline:
            await self._clock.sleep(self._latency.hedge_after)
            if self._ask():
                self._was_hedged = True
        await self._clock.sleep(max(0.0, deadline - self._clock.monotonic()))
        self._is_late = True
        self._silent.update(drive for _, drive in self._pending.values())
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _search(self) -> None:
        """Ask every drive what it holds of the block."""
        self._searched = True
        keys = [FragmentKey(self._ref.id, index) for index in range(self._ref.code.width)]
        for drive, attached in list(self._drives.items()):
            self._start(self._look_for(keys, attached), NO_FRAGMENT, drive)

    async def _look_for(self, keys: list[FragmentKey], attached: Drive) -> None:
        """Queue what a drive holds of the block and was not tried yet."""
        try:
            held = await attached.has(keys)
        except Unavailable:
            self._silent.add(attached.id)
            return
        self._queue.extend((key.index, attached.id) for key, is_held in zip(keys, held, strict=True) if is_held)

    async def _visit(self, call: Callable[[], S]) -> S:
        """`call`, in a thread if the block is large."""
        if self._ref.length <= INLINE_MAX_BYTES:
            return call()
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _glance(self, then: Callable[[Buffer], T]) -> tuple[Parts, "_Verdict[T] | None"]:
        """What the homes of the first k fragments have in memory, and what comes of it if it is all of them.

        Nothing else is under way yet, so a thread may look at what belongs to the loop.
        """
        parts: Parts = {}
        self._room = room = Room.of(self._ref)
        for index, drive in itertools.islice(self._queue, self._ref.code.k):
            attached = self._drives.get(drive)
            if attached is None or self._slow.is_slow(drive):
                return parts, None
            try:
                parts[index] = drive, attached.get_at_once(FragmentKey(self._ref.id, index), _place(room, index))
            except (BlockingIOError, HoldfastError):
                # To ask again, which comes next, finds out what is wrong.
                return parts, None
        return parts, self._judge(parts, room, then)

    async def _stay(self, then: Callable[[Buffer], T]) -> "_Verdict[T] | None":
        """What comes of the first k fragments once those that are not here were waited for, in one thread.

        None when one of them is late, or anything is wrong: what has come by then is in `_parts`.
        """
        wanted: list[tuple[int, Drive]] = []
        for index, drive in itertools.islice(self._queue, self._ref.code.k):
            attached = self._drives.get(drive)
            if attached is None or self._slow.is_slow(drive):
                return None
            if index not in self._parts:
                wanted.append((index, attached))
        parts = dict(self._parts)
        asked: deque[tuple[int, Drive]] = deque(maxlen=1)
        began = self._clock.monotonic()
        stay = self._patient.try_run(partial(self._wait_for, wanted, asked, parts, then))
        if stay is None:
            return None
        timer = asyncio.ensure_future(self._clock.sleep(self._latency.hedge_after))
        try:
            await asyncio.wait((stay, timer), return_when=asyncio.FIRST_COMPLETED)
            self._parts = dict(parts)
            # Also of one that is late: where that is what it takes, the next may take longer.
            self._latency.observe(self._clock.monotonic() - began)
            if stay.done() or len(self._parts) == self._ref.code.k:
                return await stay
        finally:
            stay.cancel()
            timer.cancel()
            await asyncio.gather(timer, return_exceptions=True)
        # Its thread may still read into our room, so the block is joined in another.
        self._room = None
        # A copy: its disk may answer at any moment, and then it goes on.
        for index, late in tuple(asked):
            self._slow.note([late.id])
            self._queue.remove((index, late.id))
            self._queue.append((index, late.id))
        return None

    def _wait_for(
        self,
        wanted: Sequence[tuple[int, Drive]],
        asked: deque[tuple[int, Drive]],
        parts: Parts,
        then: Callable[[Buffer], T],
    ) -> "_Verdict[T] | None":
        """Add what is wanted to `parts`, and see what comes of it. `asked` holds who is waited for."""
        room = self._room
        for place in wanted:
            asked.append(place)
            place[1].expect(FragmentKey(self._ref.id, place[0]))
        for place in wanted:
            asked.append(place)
            index, drive = place
            try:
                parts[index] = drive.id, drive.get_here(FragmentKey(self._ref.id, index), _place(room, index))
            except (BlockingIOError, HoldfastError):
                return None
        return self._judge(parts, room, then)

    def _judge(self, parts: Parts, room: Room | None, then: Callable[[Buffer], T]) -> "_Verdict[T]":
        """What comes of `parts`, some of which may lie where they belong in `room`."""
        proven = prove(self._ref, {index: part for index, (_, part) in parts.items()}, room)
        return _Verdict(proven.bad, None if proven.sealed is None else (then(proven.sealed),))

    def _failure(self) -> HoldfastError:
        """Never NotFound: whoever asks has it in writing that the block was stored, and a drive may be away that no
        live layout names."""
        code = self._ref.code
        said = f"block {self._ref.id.hex()}: {len(self._parts)} good fragments of the {code.k} that {code} needs"
        if self._bad and not self._silent:
            return Corrupt(f"{said}, {len(self._bad)} bad ones")
        return NotEnoughFragments(f"{said}, {len(self._bad)} bad ones; {len(self._silent)} drives do not answer")

    async def _stop(self) -> None:
        if self._was_hedged:
            self._slow.note(drive for _, drive in self._pending.values())
        tasks = [task for task in self._pending if not _went_well(task)]
        if self._timer is not None:
            tasks.append(self._timer)
        # A cancelled task knows where it stood, which is in a method of ours. Without this the collector of cycles
        # would have to find us, with all the fragments that we hold.
        self._timer = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)


def _place(room: Room | None, index: int) -> memoryview | None:
    """Where fragment `index` is read to; parity has no place of its own."""
    return room.places[index] if room is not None and index < len(room.places) else None


def _went_well(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
