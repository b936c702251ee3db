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

from holdfast.cli.catalogue import RowCatalogue, open_tag
from holdfast.cli.opening import META_NAME, OpenStore, open_store
from holdfast.cli.placing import RowLayouts
from holdfast.cli.settings import Settings
from holdfast.cli.system import keep_freed_memory
from holdfast.cli.turns import MOVING, RECODING, InTurn
from holdfast.cluster.heal import Healer
from holdfast.core.errors import HoldfastError, NotFound
from holdfast.core.ids import DriveId
from holdfast.core.limits import MIB
from holdfast.drives.buffers import BufferPool
from holdfast.drives.directory import DirectoryDrive
from holdfast.drives.interface import DriveUsage
from holdfast.erasure.arena import SHARED
from holdfast.meta.local.care import Finding
from holdfast.upkeep.audit import Auditor
from holdfast.upkeep.chores import Compaction, Periodic
from holdfast.upkeep.collect import Collector
from holdfast.upkeep.interface import TagOpener
from holdfast.upkeep.rebalance import Rebalancer
from holdfast.upkeep.recode import Recoder
from holdfast.upkeep.repair import Repairer
from holdfast.upkeep.scrub import Scrubber
from holdfast.upkeep.sessions import SessionWatch
from holdfast.upkeep.sweep import Sweeper
from holdfast.upkeep.worker import Runner, Worker, run_all

# What one step of compaction moves: a tenth of a second of a slow disk.
COMPACTION_STEP_BYTES = 16 * MIB

# How much of a segment must be dead for it to be rewritten: up to three bytes moved for each that comes back, and when
# space is short, up to nineteen.
WASTED_SHARE = 0.25
WASTED_SHARE_THOROUGH = 0.05

# The log is replayed from the last checkpoint when the view is made anew; a checkpoint is read faster.
CHECKPOINT_SECONDS = 600.0

# LMDB's pages have no checksums: rot in the view is found by comparing it with the log and its checkpoint.
VERIFY_SECONDS = 24 * 3600.0

# A client whose connection broke asks again within minutes. Each upload leaves a row until then.
COMPLETED_KEPT_SECONDS = 24 * 3600.0
COMPLETED_LOOK_SECONDS = 6 * 3600.0

# Abandoned uploads are looked for ten times within the age that makes them so, within these bounds.
UPLOADS_MIN_SECONDS = 1.0
UPLOADS_MAX_SECONDS = 3600.0

# How soon workers learn that a drive came or went, once this process noticed.
LOOK_SECONDS = 0.5

# Of each kind of memory that a process keeps to use it again, this one keeps so much.
_KEPT_BYTES = 8 * MIB

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
        InTurn(Repairer(chores.catalogue, chores.healer, clock), opened.run, MOVING, clock),
        InTurn(Rebalancer(chores.catalogue, chores.layouts, chores.healer, clock), opened.run, MOVING, clock),
        InTurn(Recoder(chores.catalogue, clock), opened.run, RECODING, clock),
        Auditor(chores.catalogue, chores.layouts, chores.healer, clock),
        Collector(chores.catalogue, opened.drives, chores.layouts, clock, opened.settings.grace),
        SessionWatch(chores.catalogue, clock),
        Periodic("metadata checkpoint", partial(_checkpoint, opened), CHECKPOINT_SECONDS, clock),
        Periodic("metadata verification", partial(_verify, opened), VERIFY_SECONDS, clock),
        Periodic("completed uploads", partial(_forget_completed, opened), COMPLETED_LOOK_SECONDS, clock),
    ]
    age = opened.settings.upload_age
    if age is not None:
        every = min(max(age / 10, UPLOADS_MIN_SECONDS), UPLOADS_MAX_SECONDS)
        workers.append(Periodic("abandoned uploads", partial(_abort_abandoned, opened, age), every, clock))
    for drive in opened.drives.values():
        workers.append(Scrubber(drive, chores.catalogue, chores.open_tag, clock))
        workers.append(Sweeper(drive, chores.catalogue, chores.open_tag, clock))
        workers.append(Compaction(CompactableDrive(drive), clock))
    return workers


async def _checkpoint(opened: OpenStore) -> None:
    await opened.local.checkpoint()


async def _forget_completed(opened: OpenStore) -> None:
    await opened.store.forget_completed(before_ns=opened.clock.now_ns() - round(COMPLETED_KEPT_SECONDS * 1e9))


async def _abort_abandoned(opened: OpenStore, age_seconds: float) -> None:
    """Abort uploads that were started so long ago; what they hold is collected as any other."""
    before_ns = opened.clock.now_ns() - round(age_seconds * 1e9)
    after = ""
    while buckets := await opened.store.list_buckets(after=after):
        for bucket in buckets:
            try:
                aborted = await opened.store.abort_uploads(bucket.name, before_ns=before_ns)
            except NotFound:  # the bucket was deleted meanwhile, with its uploads
                continue
            if aborted:
                _LOGGER.info("bucket %s: aborted %d abandoned uploads", bucket.name, aborted)
        after = buckets[-1].name


async def _verify(opened: OpenStore) -> None:
    for finding in await opened.local.verify():
        _LOGGER.warning("%s", in_words(finding))


class CompactableDrive:
    """`upkeep.interface.Compactable` of a directory drive."""

    def __init__(self, drive: DirectoryDrive) -> None:
        self._drive = drive

    @property
    def id(self) -> DriveId:
        return self._drive.id

    async def usage(self) -> DriveUsage:
        return await self._drive.usage()

    async def compact(self, *, thoroughly: bool) -> bool:
        share = WASTED_SHARE_THOROUGH if thoroughly else WASTED_SHARE
        step = await self._drive.compact(budget_bytes=COMPACTION_STEP_BYTES, wasted_share=share)
        return step.moved_bytes > 0 or step.freed_bytes > 0


def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT."""
    # It handles a block at a time, beside workers that need the memory.
    keep_freed_memory(_KEPT_BYTES)
    SHARED.keep_at_most(_KEPT_BYTES)
    try:
        uvloop.run(_run(settings))
    except asyncio.CancelledError:
        pass


async def _run(settings: Settings) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    async with open_store(settings, BufferPool(idle_max_bytes=_KEPT_BYTES)) as opened:
        workers = workers_of(opened)
        while True:
            seen = opened.changes
            working = asyncio.create_task(run_all([Runner(worker, opened.clock) for worker in workers]), name="upkeep")
            try:
                await _until_changed(opened, seen, working)
            finally:
                working.cancel()
                await asyncio.gather(working, return_exceptions=True)
            await _mend_metadata(opened)
            workers = workers_of(opened)
            for auditor in workers:
                if isinstance(auditor, Auditor):
                    await auditor.request()


async def _until_changed(opened: OpenStore, seen: int, working: "asyncio.Task[None]") -> None:
    """Return when workers have to be made anew, of the drives that there are now. Raises what ended the workers."""
    while opened.changes == seen:
        done, _ = await asyncio.wait({working}, timeout=LOOK_SECONDS)
        if done:
            working.result()
            raise AssertionError("upkeep never ends by itself")


def in_words(finding: Finding) -> str:
    """A finding of the metadata's care, for people."""
    where = f" of drive {finding.drive.hex()[:8]}" if finding.drive is not None else ""
    return f"metadata{where}: {finding.what}" + ("" if finding.repaired else " (not mended)")


async def _mend_metadata(opened: OpenStore) -> None:
    """A drive came or went: see to the metadata's mirrors."""
    try:
        await follow_places(opened)
        for finding in await opened.local.mend():
            _LOGGER.warning("%s", in_words(finding))
    except HoldfastError as error:
        _LOGGER.warning("the metadata's mirrors could not be put right: %s", error)


async def follow_places(opened: OpenStore) -> None:
    """Tell the metadata engine of a drive that came back at another place. Raises HoldfastError."""
    status = opened.local.status()
    places = opened.attachments.places
    roster = {drive: places[drive] / META_NAME for drive in status.roster if drive in places}
    if len(roster) == len(status.roster) and any(status.paths.get(drive) != path for drive, path in roster.items()):
        await opened.local.set_drives(roster, losses=status.losses, metacopies=status.metacopies)
