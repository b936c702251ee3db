"""One block to its drives: all homes at once, handoffs for those that fail, an answer at the quorum.

Rules.
- Durable means that the drive's `put` returned. Below the code's write quorum nothing is acknowledged.
- No drive gets two fragments of the block: a loss of one drive must stay a loss of one fragment.
- A drive is slow beside others only. While answers come, or none has come yet, all are busy: then no handoff makes it
  worse, and the writer waits, which holds its client back. When its time is over it is told that drives are busy.
- Who was slow a moment ago is left out while the others make up the quorum, and no longer.
- A fragment for which a handoff was asked counts as missing from its home even if the home answers late: whoever is
  told looks after both.
- When `run` is over, however it ends, no task of it is left. What was begun may still become durable: fragments that
  nobody refers to are found by their tags and swept.
"""

import asyncio
from collections import deque
from collections.abc import Coroutine, Mapping

from msgspec import Struct

from holdfast.cluster.slow import SLOW_FACTOR, SlowDrives
from holdfast.core.clock import Clock
from holdfast.core.errors import Full, HoldfastError, NodeDown, NotEnoughFragments, Timeout, Unavailable
from holdfast.core.ids import DriveId
from holdfast.drives.interface import Drive, Fragment, FragmentKey
from holdfast.erasure import CodedBlock

# How long an answered quorum waits for the rest: a fragment that comes within it needs no repair later, and the writer
# behind a single slow drive is not kept for long. Group commits of a busy disk take up to a tenth of it.
GRACE_SECONDS = 0.5

# How long homes may take before handoffs are tried beside them, while the quorum is not reached, and looked at again.
HANDOFF_AFTER_SECONDS = 2.0

# Long enough that a hanging drive does not cost every write its grace, short enough that a hiccup is soon forgotten.
SLOW_WRITER_SECONDS = 5.0

# A write that has not reached its quorum by then is given up. S3 clients time out after 60 s.
WRITE_TIMEOUT_SECONDS = 30.0


class Written(Struct, frozen=True):
    """A block that is durable to its quorum."""

    missing: tuple[int, ...]
    """Fragments that are on a handoff or nowhere, and must be brought home."""
    layout_version: int
    """The layout whose homes were written to."""


class Write:
    """One write in progress."""

    def __init__(
        self,
        block: CodedBlock,
        tag: bytes,
        order: tuple[DriveId, ...],
        drives: Mapping[DriveId, Drive],
        slow: SlowDrives,
        clock: Clock,
    ) -> None:
        """`order` is the block's order of preference, homes first; `drives` those that are attached."""
        self._block = block
        self._tag = tag
        code = block.ref.code
        self._width, self._quorum = code.width, code.write_quorum
        self._order = order
        self._homes = order[: self._width]
        self._drives = drives
        self._slow = slow
        self._left_out = slow.left_out(order, drives, self._quorum)
        self._spare = deque(drive for drive in order[self._width :] if drive not in self._left_out)
        self._clock = clock
        self._began = clock.monotonic()
        self._answered_seconds: float | None = None
        """What the last fragment that became durable took."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._durable: set[int] = set()
        self._away: set[int] = set()
        """Fragments that a handoff was asked to take, or that had no drive to go to."""
        self._pending: dict[int, set[DriveId]] = {index: set() for index in range(self._width)}
        self._errors: dict[int, Unavailable] = {}
        self._in_grace = False
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> tuple[int, ...]:
        """Fragments not at home.

        Raises NotEnoughFragments, Full, Timeout, and what a drive raises that is not Unavailable.
        """
        try:
            self._spawn(self._pace())
            for index in range(self._width):
                home = self._homes[index] if index < len(self._homes) else None
                if home is None or home not in self._drives:
                    self._hand_off(index, NodeDown("its home is not attached"))
                elif home in self._left_out:
                    self._hand_off(index, NodeDown("its home is slow"))
                else:
                    self._send(index, home)
            self._look()
            await self._outcome
        finally:
            await self._stop()
        return tuple(sorted(self._away | (self._pending.keys() - self._durable)))

    async def _pace(self) -> None:
        """What happens when nothing else does."""
        waited = 0.0
        while waited < WRITE_TIMEOUT_SECONDS:
            await self._clock.sleep(HANDOFF_AFTER_SECONDS)
            waited += HANDOFF_AFTER_SECONDS
            answered = self._answered_seconds
            if not self._in_grace and answered is not None and waited > SLOW_FACTOR * answered:
                self._hand_off_late()
        self._time_out()

    def _hand_off_late(self) -> None:
        for index in self._pending.keys() - self._durable - self._away:
            self._slow.note(self._pending[index])
            if self._spare:
                self._hand_off(index, NodeDown("its home is slow"))

    async def _grace(self) -> None:
        seconds = self._clock.monotonic() - self._began
        await self._clock.sleep(max(GRACE_SECONDS, (SLOW_FACTOR - 1) * seconds))
        for index in self._pending.keys() - self._durable:
            self._slow.note(self._pending[index])
        self._settle(None)

    def _send(self, index: int, drive: DriveId) -> None:
        self._pending[index].add(drive)
        self._spawn(self._store(index, self._drives[drive]))

    def _hand_off(self, index: int, why: Unavailable) -> None:
        """Try the next drive that stands in; with none left, the fragment has to wait for repair."""
        self._away.add(index)
        self._errors[index] = why
        while self._spare:
            drive = self._spare.popleft()
            if drive in self._drives:
                self._send(index, drive)
                return

    async def _store(self, index: int, attached: Drive) -> None:
        drive, block = attached.id, self._block
        key = FragmentKey(block.ref.id, index)
        fragment = Fragment(key, block.commitment, block.leaves[index], self._tag, block.payloads[index])
        try:
            await attached.put((fragment,))
        except Unavailable as error:
            self._pending[index].discard(drive)
            if index not in self._durable and not self._pending[index]:
                self._hand_off(index, error)
        except HoldfastError as error:
            self._settle(error)
        else:
            self._pending[index].discard(drive)
            self._durable.add(index)
            self._answered_seconds = self._clock.monotonic() - self._began
        self._look()

    def _look(self) -> None:
        """Decide whether it is over."""
        is_waiting = any(self._pending[index] for index in self._pending.keys() - self._durable)
        if len(self._durable) >= self._quorum:
            if not is_waiting:
                self._settle(None)
            elif not self._in_grace:
                self._in_grace = True
                self._spawn(self._grace())
        elif not is_waiting and not self._turn_to_left_out():
            self._fail()

    def _turn_to_left_out(self) -> bool:
        """Write to the slow after all, as the quorum cannot be had without them; False when there are none."""
        left_out, self._left_out = self._left_out, ()
        if not left_out:
            return False
        self._spare.extend(drive for drive in self._order[self._width :] if drive in left_out)
        for index in self._pending.keys() - self._durable:
            home = self._homes[index] if index < len(self._homes) else None
            if home is not None and home in left_out and home in self._drives:
                self._send(index, home)
            else:
                self._hand_off(index, self._errors[index])
        return any(self._pending.values())

    def _time_out(self) -> None:
        busy = sum(bool(self._pending[index]) for index in self._pending.keys() - self._durable)
        if len(self._durable) >= self._quorum:
            self._settle(None)
        elif len(self._durable) + busy >= self._quorum:
            said = f"{len(self._durable)} of {self._width} fragments written in {WRITE_TIMEOUT_SECONDS:.0f} s"
            self._settle(Timeout(f"{said}, {self._quorum} are needed: the drives are too busy"))
        else:
            self._fail()

    def _fail(self) -> None:
        lost = [error for index, error in self._errors.items() if index not in self._durable]
        full = sum(isinstance(error, Full) for error in lost)
        said = f"{len(self._durable)} of {self._width} fragments written, {self._quorum} are needed"
        if full and len(self._durable) + full >= self._quorum:
            self._settle(Full(f"{said}: {full} drives are full; delete something or add a drive"))
        else:
            reasons = "; ".join(sorted({str(error) for error in lost})) or "no answer in time"
            self._settle(NotEnoughFragments(f"{said} ({reasons})"))

    def _settle(self, error: HoldfastError | None) -> None:
        if self._outcome.done():
            return
        if error is None:
            self._outcome.set_result(None)
        else:
            self._outcome.set_exception(error)

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._outcome.done():
            self._outcome.set_exception(error)

    async def _stop(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
