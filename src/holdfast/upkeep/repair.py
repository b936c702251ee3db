"""Repair: drains the outbox of blocks that lack fragments, hold bad ones, or have them in the wrong place.

Rules:

- Only a block whose content the rows call LIVE is touched. A row whose content is condemned or gone is dropped: the
  collection or the sweep will see to the fragments. UNKNOWN waits.
- A row goes only when its block is whole; what waits for a drive stays and is looked at again.
- Reporting is idempotent and so is repairing: several processes may do both at once, twice costs only time.
"""

import asyncio
from collections.abc import Sequence

from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt
from holdfast.upkeep.heal import Healed, Healer
from holdfast.upkeep.interface import Catalogue, Liveness, RepairTask
from holdfast.upkeep.status import Rate
from holdfast.upkeep.worker import State, Wake

# How soon a put that left fragments on a hand-off is made whole, when nobody says anything.
LOOK_SECONDS = 10.0

# Blocks in hand at once: enough to keep several drives busy, and k+m fragments of each in memory.
TOGETHER = 4


class Repairer:
    """The worker. One step repairs up to TOGETHER blocks."""

    name = "repair"

    def __init__(self, catalogue: Catalogue, healer: Healer, clock: Clock) -> None:
        self._catalogue = catalogue
        self._healer = healer
        self._clock = clock
        self._wake = Wake(clock)
        self._after: bytes | None = None
        self.rate = Rate(clock)
        """Blocks repaired per second."""
        self.lost = 0
        """Blocks of the last pass over the outbox that cannot be read now."""
        self.waiting = 0
        """Those that wait for a drive, the lost ones included."""
        self._seen_lost = 0
        self._seen_waiting = 0

    def status(self) -> str:
        if not self.waiting:
            return ""
        return f"{self.waiting} blocks wait for a drive, {self.lost} of them cannot be read until then"

    def wake(self) -> None:
        self._wake.set()

    async def work(self) -> State:
        tasks = await self._catalogue.damaged(after=self._after, limit=TOGETHER)
        if not tasks:
            self._after = None
            self.lost, self.waiting = self._seen_lost, self._seen_waiting
            self._seen_lost = self._seen_waiting = 0
            return State.IDLE
        with self.rate.measured() as step:
            step.count = await self._repair(tasks)
        self._after = tasks[-1].key
        return State.BUSY

    async def wait_for_work(self) -> None:
        await self._wake.wait(LOOK_SECONDS)

    async def _repair(self, tasks: Sequence[RepairTask]) -> int:
        """How many of `tasks` are done with."""
        contents = [task.block.tagged.content for task in tasks]
        liveness = await self._catalogue.liveness(contents)
        return sum(await asyncio.gather(*map(self._repair_one, tasks, liveness)))

    async def _repair_one(self, task: RepairTask, liveness: Liveness) -> bool:
        if liveness is Liveness.UNKNOWN:
            return False
        if liveness is Liveness.LIVE:
            healed = await self._heal(task)
            if not healed.whole:
                self._seen_waiting += 1
                self._seen_lost += healed.lost
                return False
        await self._catalogue.repaired(task)
        return True

    async def _heal(self, task: RepairTask) -> Healed:
        try:
            return await self._healer.heal(task.block)
        except Corrupt:
            # Good fragments that do not make up the block: whoever wrote it was wrong. Nothing here can mend that.
            return Healed(whole=False, lost=True)
