"""fsck: looks at everything once, from both sides, and says what is not as it should be.

From the rows: is every block of every content where it should be? From the drives: does every fragment belong to
something? With `read` every fragment is read and checked as well. Changes nothing; with `repair` it tells repair of
what can be mended, and whoever called it lets the `Repairer` work.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from holdfast.cluster.heal import Placing, survey_blocks
from holdfast.cluster.plan import Survey
from holdfast.core.errors import Corrupt, NotEnoughFragments, NotFound, Unavailable
from holdfast.core.ids import BlockId, ContentId, DriveId
from holdfast.drives.interface import Drive, FragmentInfo, FragmentKey
from holdfast.upkeep.audit import plan_of
from holdfast.upkeep.interface import (
    Catalogue,
    Layouts,
    Liveness,
    StoredBlock,
    TaggedContent,
    TagOpener,
    attribute,
)
from holdfast.upkeep.scrub import check
from holdfast.upkeep.walk import next_batch, walk_kept

BATCH_BLOCKS = 256
PAGE_FRAGMENTS = 256


class Trouble(Enum):
    LOST = "lost"
    """A block of which fewer than k good fragments are left: what needs it cannot be read."""
    MISSING = "missing"
    """A fragment that is nowhere, or on a drive that does not answer."""
    MISPLACED = "misplaced"
    """A fragment that lies where the layout does not want it."""
    BAD = "bad"
    """A fragment that is not what was committed to."""
    UNREAD = "unread"
    """An inner node that could not be read, or a damaged row: what hangs below it was not looked at."""
    ORPHAN = "orphan"
    """A fragment whose content is gone; the sweep will delete it."""
    DANGLING = "dangling"
    """A fragment of a living content that has no such block: goes with its content."""
    UNATTRIBUTABLE = "unattributable"
    """A fragment whose tag was not sealed by this store: never touched."""
    SILENT = "silent"
    """A drive that does not answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    trouble: Trouble
    content: ContentId | None = None
    block: BlockId | None = None
    index: int | None = None
    drive: DriveId | None = None
    detail: str = ""

    def __str__(self) -> str:
        said = self.trouble.value
        if self.block is not None:
            said += f": block {self.block.hex()[:16]}"
        if self.index is not None:
            said += f" fragment {self.index}"
        if self.content is not None:
            said += f" of content {self.content.hex()}"
        if self.drive is not None:
            said += f" on drive {self.drive.hex()[:8]}"
        return f"{said} ({self.detail})" if self.detail else said


async def fsck(
    catalogue: Catalogue,
    drives: Mapping[DriveId, Drive],
    layouts: Layouts,
    open_tag: TagOpener,
    *,
    read: bool = False,
    repair: bool = False,
) -> AsyncIterator[Finding]:
    """Everything that is wrong, as it is found. Raises Unavailable when the rows cannot be read."""
    async for finding in _from_rows(catalogue, drives, layouts, repair=repair):
        yield finding
    for drive in drives.values():
        try:
            async for finding in _from_drive(catalogue, drive, open_tag, read=read, repair=repair):
                yield finding
        except Unavailable as error:
            yield Finding(Trouble.SILENT, drive=drive.id, detail=str(error))


async def _from_rows(
    catalogue: Catalogue, drives: Mapping[DriveId, Drive], layouts: Layouts, *, repair: bool
) -> AsyncIterator[Finding]:
    walk = walk_kept(catalogue, None, lambda entry: True)
    more = True
    while more:
        batch = await next_batch(walk, BATCH_BLOCKS)
        more = batch.more
        for end in batch.ended:
            if end.unread is not None:
                yield Finding(Trouble.UNREAD, end.content, detail=str(end.unread))
        newest = (await layouts.live())[0]
        surveys = await survey_blocks(drives, newest, [block.ref for block in batch.blocks])
        damaged = []
        for block, survey in zip(batch.blocks, surveys, strict=True):
            findings = look(block, survey, newest)
            if findings:
                damaged.append(block)
            for finding in findings:
                yield finding
        if repair and damaged:
            await catalogue.report_damage(damaged)


def look(block: StoredBlock, survey: Survey, newest: Placing) -> list[Finding]:
    """What is wrong with a block, by what the drives say they hold."""
    content, name = block.tagged.content, block.ref.id
    plan = plan_of(block, survey, newest)
    findings = []
    if block.unread is not None:
        findings.append(Finding(Trouble.UNREAD, content, name, detail=str(block.unread)))
    if plan.lost:
        good = f"{len(survey.good)} of {block.ref.code.k} needed fragments, {len(survey.silent)} drives silent"
        findings.append(Finding(Trouble.LOST, content, name, detail=good))
    findings += [Finding(Trouble.MISSING, content, name, index) for index in plan.missing]
    misplaced = {(copy.index, copy.source) for copy in plan.copies} | set(plan.drop)
    findings += [Finding(Trouble.MISPLACED, content, name, index, drive) for index, drive in sorted(misplaced)]
    return findings


async def _from_drive(
    catalogue: Catalogue, drive: Drive, open_tag: TagOpener, *, read: bool, repair: bool
) -> AsyncIterator[Finding]:
    after: FragmentKey | None = None
    while page := await drive.list(after, PAGE_FRAGMENTS):
        after = page[-1].key
        for info in page:
            bad = read and (await check(drive, info)).bad
            finding, block = await _judge(catalogue, drive, open_tag, info, bad=bad)
            if finding is not None:
                yield finding
            if repair and bad and block is not None:
                await catalogue.report_damage([block])


async def _judge(
    catalogue: Catalogue, drive: Drive, open_tag: TagOpener, info: FragmentInfo, *, bad: bool
) -> tuple[Finding | None, StoredBlock | None]:
    """What is wrong with a fragment, and its block if that is alive."""
    name, index = info.key
    try:
        tagged = attribute(open_tag, name, info.tag)
    except Corrupt as error:
        return Finding(Trouble.UNATTRIBUTABLE, None, name, index, drive.id, str(error)), None
    [liveness] = await catalogue.liveness([tagged.content])
    if liveness is Liveness.GONE:
        return Finding(Trouble.ORPHAN, tagged.content, name, index, drive.id), None
    if liveness is not Liveness.LIVE:
        return None, None
    finding = Finding(Trouble.BAD, tagged.content, name, index, drive.id) if bad else None
    try:
        block = await _block(catalogue, tagged, name)
    except NotFound:
        return Finding(Trouble.DANGLING, tagged.content, name, index, drive.id), None
    except (Corrupt, NotEnoughFragments):
        # The tree above it cannot be read, as the walk from the rows has said.
        return finding, None
    return (finding, block) if block is not None else (None, None)


async def _block(catalogue: Catalogue, tagged: TaggedContent, name: BlockId) -> StoredBlock | None:
    """The block of a living content; None while it is ahead of its row. Raises NotFound when it is in no row."""
    try:
        return await catalogue.find(tagged, name)
    except NotFound:
        try:
            await anext(catalogue.blocks(tagged.content), None)
        except NotFound:
            return None
    return await catalogue.find(tagged, name)  # it may have been published in between


def worst(findings: Sequence[Finding]) -> Trouble | None:
    """The gravest of them: `Trouble` is in order of gravity. None when all is well."""
    order = list(Trouble)
    return min((finding.trouble for finding in findings), key=order.index, default=None)
