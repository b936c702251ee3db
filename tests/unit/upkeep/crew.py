"""All the workers over one world, made anew after each kill, as a process would make them."""

from collections.abc import Sequence

from holdfast.cluster.heal import Healer
from holdfast.core.errors import HoldfastError
from holdfast.upkeep.audit import Auditor
from holdfast.upkeep.collect import Collector
from holdfast.upkeep.interface import SESSION_SILENCE_SECONDS
from holdfast.upkeep.rebalance import Rebalancer
from holdfast.upkeep.repair import Repairer
from holdfast.upkeep.scrub import Scrubber
from holdfast.upkeep.sessions import SessionWatch
from holdfast.upkeep.sweep import Sweeper
from holdfast.upkeep.worker import State, Worker
from tests.unit.upkeep.world import World, open_tag

MONTH_SECONDS = 31 * 24 * 3600.0


class Crew:
    def __init__(self, world: World) -> None:
        drives = world.attached()
        healer = Healer(drives, world.layouts)
        self.world = world
        self.sessions = SessionWatch(world, world.clock)
        self.collector = Collector(world, drives, world.layouts, world.clock)
        self.repairer = Repairer(world, healer, world.clock)
        self.rebalancer = Rebalancer(world, world.layouts, healer, world.clock)
        self.auditor = Auditor(world, world.layouts, healer, world.clock)
        self.sweepers = [Sweeper(drive, world, open_tag, world.clock) for drive in drives.values()]
        self.scrubbers = [Scrubber(drive, world, open_tag, world.clock) for drive in drives.values()]

    @property
    def workers(self) -> Sequence[Worker]:
        return [
            self.sessions,
            self.collector,
            self.rebalancer,
            self.auditor,
            *self.scrubbers,
            *self.sweepers,
            self.repairer,
        ]

    async def settle(self, worker: Worker) -> None:
        """Let a worker do what it can do now; an error of the world's ends its turn."""
        try:
            while await worker.work() is State.BUSY:
                pass
        except HoldfastError:
            pass

    async def round(self) -> None:
        for worker in self.workers:
            await self.settle(worker)

    async def rest(self, rounds: int = 5) -> None:
        """Months go by, in which every session that does not beat ends and everything has its turn several times."""
        for _ in range(rounds):
            await self.round()
            await self.world.clock.advance(SESSION_SILENCE_SECONDS + 1)
            await self.settle(self.sessions)
            await self.world.clock.advance(MONTH_SECONDS)
