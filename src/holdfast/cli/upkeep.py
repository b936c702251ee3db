"""The upkeep process: every chore of the store, each as a worker, driven side by side and throttled.

Several may run at once, after a supervisor died and came back, say: every step may be done twice, so they are in each
other's way at worst.
"""

import asyncio
import logging
import signal
from dataclasses import dataclass
from functools import partial

import uvloop

from holdfast.cli.app import end_with_supervisor
from holdfast.cli.catalogue import RowCatalogue, open_tag
from holdfast.cli.opening import OpenStore, open_store
from holdfast.cli.placing import RowLayouts
from holdfast.cli.settings import Settings
from holdfast.cli.system import keep_freed_memory
from holdfast.core.ids import DriveId
from holdfast.core.limits import MIB
from holdfast.drives.directory import DirectoryDrive
from holdfast.upkeep.audit import Auditor
from holdfast.upkeep.chores import Compaction, Periodic
from holdfast.upkeep.collect import Collector
from holdfast.upkeep.heal import Healer
from holdfast.upkeep.interface import TagOpener
from holdfast.upkeep.rebalance import Rebalancer
from holdfast.upkeep.recode import Recoder
from holdfast.upkeep.repair import Repairer
from holdfast.upkeep.scrub import Scrubber
from holdfast.upkeep.sessions import SessionWatch
from holdfast.upkeep.sweep import Sweeper
from holdfast.upkeep.worker import Runner, Throttle, Worker, run_all

# What one step of compaction moves: a tenth of a second of a slow disk.
COMPACTION_STEP_BYTES = 16 * MIB

# The log is replayed from the last checkpoint when the view is made anew; a checkpoint is read faster.
CHECKPOINT_SECONDS = 600.0

# LMDB's pages have no checksums: rot in the view is found by comparing it with the log and its checkpoint.
VERIFY_SECONDS = 24 * 3600.0


_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class Chores:
    """What upkeep's workers stand on, made from an open store."""

    catalogue: RowCatalogue
    layouts: RowLayouts
    healer: Healer
    open_tag: TagOpener


def chores_of(opened: OpenStore) -> Chores:
    tags = opened.keyring.tag_sealer(opened.randomness)
    opener = opened.keyring.tag_opener()
    layouts = RowLayouts(opened.layouts)
    return Chores(
        catalogue=RowCatalogue(opened.meta, opened.contents, tags, opened.clock, opened.randomness),
        layouts=layouts,
        healer=Healer(opened.drives, layouts),
        open_tag=partial(open_tag, opener),
    )


def workers_of(opened: OpenStore) -> list[Worker]:
    """Every chore of a store."""
    chores, clock = chores_of(opened), opened.clock
    workers: list[Worker] = [
        Repairer(chores.catalogue, chores.healer, clock),
        Rebalancer(chores.catalogue, chores.layouts, chores.healer, clock),
        Auditor(chores.catalogue, chores.layouts, chores.healer, clock),
        Collector(chores.catalogue, opened.drives, clock, opened.settings.grace),
        SessionWatch(chores.catalogue, clock),
        Recoder(chores.catalogue, clock),
        Periodic("metadata checkpoint", partial(_checkpoint, opened), CHECKPOINT_SECONDS, clock),
        Periodic("metadata verification", partial(_verify, opened), VERIFY_SECONDS, clock),
    ]
    for drive in opened.drives.values():
        workers.append(Scrubber(drive, chores.catalogue, chores.open_tag, clock))
        workers.append(Sweeper(drive, chores.catalogue, chores.open_tag, clock))
        workers.append(Compaction(CompactableDrive(drive), clock))
    return workers


async def _checkpoint(opened: OpenStore) -> None:
    await opened.local.checkpoint()


async def _verify(opened: OpenStore) -> None:
    for finding in await opened.local.verify():
        _LOGGER.warning("metadata: %s", finding)


class CompactableDrive:
    """`upkeep.interface.Compactable` of a directory drive."""

    def __init__(self, drive: DirectoryDrive) -> None:
        self._drive = drive

    @property
    def id(self) -> DriveId:
        return self._drive.id

    async def compact(self) -> bool:
        step = await self._drive.compact(budget_bytes=COMPACTION_STEP_BYTES)
        return step.moved_bytes > 0 or step.freed_bytes > 0


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    end_with_supervisor()
    keep_freed_memory()
    try:
        uvloop.run(_run(settings))
    except asyncio.CancelledError:
        pass


async def _run(settings: Settings) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with open_store(settings) as opened:
        throttle = Throttle(opened.clock)
        await run_all([Runner(worker, throttle, opened.clock) for worker in workers_of(opened)])
