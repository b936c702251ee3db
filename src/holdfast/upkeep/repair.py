"""Repair: drains the outbox of blocks that lack fragments, hold bad ones, or have them in the wrong place.

Rules:

- Only a block whose content the rows call LIVE is touched. A row whose content is condemned or gone is dropped: the
  collection or the sweep will see to the fragments. UNKNOWN waits.
- A row goes only when its block is whole; what waits for a drive stays and is looked at again. Looking asks the drives'
  indexes; the fragments are read only where something can be done, and every WAITING_READ_SECONDS in case one of them
  rots while another is waited for.
- A block of which nothing is left, on any home, is asked for: its content may have been coded anew and live without it.
- Reporting is idempotent and so is repairing: several processes may do both at once, twice costs only time.
"""

import asyncio
from collections.abc import Sequence

from holdfast.cluster.heal import Healed, Healer
from holdfast.cluster.plan import BlockPlan
from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, HoldfastError, NotFound
from holdfast.upkeep.interface import Catalogue, Liveness, RepairTask
from holdfast.upkeep.progress import Rate, Record, Saver
from holdfast.upkeep.worker import TRANQUILITY_MENDING, State, Wake

# How soon a put that left fragments on a hand-off is made whole, when nobody says anything.
LOOK_SECONDS = 10.0

# A drive that is away leaves rows by the thousand: reading their blocks at every look would keep the others busy.
WAITING_READ_SECONDS = 600.0

# Tasks of one step: one question to each drive for all of them.
BATCH_TASKS = 32

# Blocks in hand at once: enough to keep several drives busy, and k+m fragments of each in memory.
TOGETHER = 4


class RepairRecord(Record):
    """What `status` is told, in whatever process it runs. Nothing is resumed by it: the outbox is the progress."""

    blocks_per_second: float = 0.0
    """At the pace of late, rests included; 0 when nothing was repaired yet."""
    waiting: int = 0
    """Blocks that the last pass over the outbox left in it: they wait for a drive, or for their content's verdict."""
    lost: int = 0
    """Those of them that cannot be read now."""


class Repairer:
    """The worker. One step is up to BATCH_TASKS of the outbox."""

    name = "repair"
    tranquility = TRANQUILITY_MENDING

    def __init__(self, catalogue: Catalogue, healer: Healer, clock: Clock) -> None:
        self._catalogue = catalogue
        self._healer = healer
        self._clock = clock
        self._saver = Saver(catalogue, self.name, clock)
        self._wake = Wake(clock)
        self._after: bytes | None = None
        self._rate = Rate(clock)
        self._told: RepairRecord | None = None
        self._read_waiting_at = clock.monotonic()
        self._reads_waiting = False
        """Whether this pass reads blocks for which nothing seems to be possible."""
        self._seen_lost = 0
        self._seen_waiting = 0
        self._done = 0
        """Blocks that are done with, of this pass, or of the last one that found any."""

    def status(self) -> str:
        told, said = self._told, f"{self._done} blocks mended" if self._done else ""
        if told is None or not told.waiting:
            return said
        waiting = f"{told.waiting} blocks wait for a drive, {told.lost} of them cannot be read until then"
        return f"{said}, {waiting}" if said else waiting

    def wake(self) -> None:
        self._wake.set()

    async def work(self) -> State:
        tasks = await self._catalogue.damaged(after=self._after, limit=BATCH_TASKS)
        if not tasks:
            await self._end_pass()
            return State.IDLE
        if self._after is None:
            self._done = 0
        with self._rate.measured() as step:
            step.count = done = await self._repair(tasks)
        self._done += done
        self._after = tasks[-1].key
        told = self._told or RepairRecord()
        await self._saver.keep_seldom(RepairRecord(1, self._rate.per_second, told.waiting, told.lost))
        return State.BUSY

    async def wait_for_work(self) -> None:
        await self._wake.wait(LOOK_SECONDS)

    async def _end_pass(self) -> None:
        now = self._clock.monotonic()
        if self._reads_waiting:
            self._read_waiting_at = now
        self._reads_waiting = now - self._read_waiting_at >= WAITING_READ_SECONDS
        told = RepairRecord(1, self._rate.per_second, self._seen_waiting, self._seen_lost)
        self._after, self._seen_waiting, self._seen_lost = None, 0, 0
        if self._told is None or (told.waiting, told.lost) != (self._told.waiting, self._told.lost):
            await self._saver.keep(told)
        self._told = told

    async def _repair(self, tasks: Sequence[RepairTask]) -> int:
        """How many of `tasks` are done with."""
        contents = [task.block.tagged.content for task in tasks]
        liveness = await self._catalogue.liveness(contents)
        plans = await self._healer.plan([task.block.ref for task in tasks])
        work = list(zip(tasks, liveness, plans, strict=True))
        done = 0
        for start in range(0, len(work), TOGETHER):
            group = work[start : start + TOGETHER]
            done += sum(await asyncio.gather(*(self._repair_one(*one) for one in group)))
        return done

    async def _repair_one(self, task: RepairTask, liveness: Liveness, plan: BlockPlan) -> bool:
        if liveness is Liveness.UNKNOWN:
            self._seen_waiting += 1
            return False
        if liveness is Liveness.LIVE:
            healed = await self._heal(task, plan)
            if not healed.whole and not await self._is_done_with(task, plan):
                self._seen_waiting += 1
                self._seen_lost += healed.lost
                return False
        await self._catalogue.repaired(task)
        return True

    async def _is_done_with(self, task: RepairTask, plan: BlockPlan) -> bool:
        """Whether nothing is left of a block, and its content has it no more: that was coded anew, and the old blocks
        were collected. Nobody misses it, and `status` must not say that it is lost."""
        if plan.waiting or len(plan.missing) < task.block.ref.code.width:
            return False
        try:
            await self._catalogue.find(task.block.tagged, task.block.ref.id)
        except NotFound:
            return True
        except HoldfastError:
            return False
        return False

    async def _heal(self, task: RepairTask, plan: BlockPlan) -> Healed:
        if plan.idle and not plan.whole and not self._reads_waiting:
            return Healed(whole=False, lost=plan.lost)
        try:
            return await self._healer.heal(task.block.ref, task.block.tag)
        except Corrupt:
            # Good fragments that do not make up the block: whoever wrote it was wrong. Nothing here can mend that.
            return Healed(whole=False, lost=True)
