"""Audit: walks every content that is kept and checks that each block's fragments are all where they belong.

Scrub reads what the drives hold; the audit asks for what they should hold. It finds what a drive lost without a word,
and what a drive that came back still holds in places that are no longer its own. It reads no payloads.

Rules:

- What can be mended is told to repair; a fragment whose drive does not answer is not damage, or an unplugged drive
  would flood the outbox.
- While several layouts live, rebalance is at work: then only what is missing everywhere is reported.
- What the walk adds up on the way (how much is kept under which code) is kept for `status`, which could not afford it.
"""

import logging
from collections.abc import Sequence

import msgspec

from holdfast.cluster.heal import Healer, Placing
from holdfast.cluster.plan import BlockPlan, Survey, plan_block
from holdfast.core.clock import Clock
from holdfast.core.ids import ContentId
from holdfast.upkeep.interface import Catalogue, Layouts, StoredBlock
from holdfast.upkeep.progress import Passes, PassRecord
from holdfast.upkeep.walk import End, Walk, next_batch, walk_kept

_log = logging.getLogger(__name__)

# Index look-ups only, so it can afford to come around more often than scrub.
PERIOD_SECONDS = 7 * 24 * 3600.0

BATCH_BLOCKS = 256


class Kept(msgspec.Struct, array_like=True):
    """How much is kept under one code."""

    code: str
    losses: int
    """Drives that it survives the loss of."""
    contents: int = 0
    length: int = 0
    """Plain bytes."""


class AuditRecord(PassRecord):
    """Where the pass stands, and what the last whole one found."""

    rested: float = PERIOD_SECONDS
    after: bytes = b""
    blocks: int = 0
    reported: int = 0
    lost: int = 0
    """Blocks of this pass, of the last one when none is under way."""
    homeless: int = 0
    """Blocks for which there are too few drives, as counted so far in this pass."""
    kept: dict[str, Kept] = msgspec.field(default_factory=dict)
    """Contents by code, likewise."""
    known_homeless: int = 0
    known_kept: dict[str, Kept] = msgspec.field(default_factory=dict)
    """The same of the last whole pass: what `status` says."""


def to_report(plan: BlockPlan, survey: Survey, *, moving: bool) -> bool:
    """Whether a block should be told to repair."""
    if plan.lost:
        return not survey.silent
    if moving:
        return bool(plan.rebuild)
    return not plan.idle


class Auditor(Passes[AuditRecord]):
    """The worker. One step is one batch of blocks."""

    name = "audit"

    def __init__(self, catalogue: Catalogue, layouts: Layouts, healer: Healer, clock: Clock) -> None:
        super().__init__(self.name, AuditRecord, PERIOD_SECONDS, catalogue, clock)
        self._layouts = layouts
        self._healer = healer
        self._walk: Walk | None = None

    def status(self) -> str:
        record = self.record
        if record is None or not (record.under_way or record.blocks):
            return "no pass yet"
        said = f"{record.blocks} blocks looked up, {record.reported} told to repair, {record.lost} unreadable"
        return said if record.under_way else f"last pass: {said}"

    async def request(self) -> None:
        """Begin a pass now, or begin anew the one that is under way: a drive was replaced, or came back."""
        (await self._load()).under_way = False
        self._walk = None
        await super().request()

    def _begin(self, record: AuditRecord) -> None:
        record.after = b""
        record.blocks = record.reported = record.lost = 0
        record.homeless, record.kept = 0, {}

    async def _step(self, record: AuditRecord) -> bool:
        walk, self._walk = self._walk, None  # a step that fails begins again behind the last content it finished
        if walk is None:
            after = ContentId(record.after) if record.after else None
            walk = walk_kept(self._catalogue, after, lambda entry: True)
        batch = await next_batch(walk, BATCH_BLOCKS)
        await self._look(record, batch.blocks)
        for end in batch.ended:
            _count(record, end)
        if batch.more:
            self._walk = walk
        return batch.more

    def _end(self, record: AuditRecord) -> None:
        record.known_homeless, record.known_kept = record.homeless, record.kept

    async def _look(self, record: AuditRecord, blocks: Sequence[StoredBlock]) -> None:
        layouts = await self._layouts.live()
        surveys = await self._healer.survey([block.ref for block in blocks], layouts[0])
        damaged = []
        for block, survey in zip(blocks, surveys, strict=True):
            plan = plan_of(block, survey, layouts[0])
            record.blocks += 1
            record.lost += plan.lost
            record.homeless += bool(plan.homeless)
            if to_report(plan, survey, moving=len(layouts) > 1):
                damaged.append(block)
        if damaged:
            await self._catalogue.report_damage(damaged)
            record.reported += len(damaged)


def plan_of(block: StoredBlock, survey: Survey, placing: Placing) -> BlockPlan:
    return plan_block(block.ref.code, placing.drives(block.ref), survey)


def _count(record: AuditRecord, end: End) -> None:
    record.after = end.content
    if end.unread is not None:
        record.lost += 1
        _log.warning("the blocks of content %s cannot be found: %s", end.content.hex(), end.unread)
    if end.entry is not None:
        code = end.entry.code
        kept = record.kept.setdefault(str(code), Kept(str(code), code.m))
        kept.contents += 1
        kept.length += end.entry.length
