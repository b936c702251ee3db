"""The sweep: reads a drive's listing and finds what should not be there.

Rules:

- A fragment is deleted only if its tag opens and the rows say GONE of its content twice, at least SWEEP_GAP_SECONDS
  apart; the second time just before the deletion. UNKNOWN and LIVE clear the suspicion, and a tag that does not open
  is counted and left alone.
- The gap is measured by the monotonic clock of processes that ran: time in which no upkeep ran does not count, and a
  wrong wall clock deletes nothing.
- A fragment of a living content is left alone wherever it lies: the audit, which knows the blocks, judges places.

So whatever a crash, a drive back from the dead or a half-done collection left is found by what lies on the drives,
and nobody has to remember it.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt
from holdfast.core.ids import BlockId, ContentId
from holdfast.drives.interface import Drive, FragmentInfo, FragmentKey
from holdfast.upkeep.interface import SWEEP_GAP_SECONDS, Catalogue, Liveness, TaggedContent, TagOpener, attribute
from holdfast.upkeep.progress import Passes, PassRecord

# Garbage outside collection is rare, and a listing reads the index of a whole drive.
PERIOD_SECONDS = 24 * 3600.0

PAGE_FRAGMENTS = 1000

# The suspects of one drive fit a progress row of half a MiB; a pass that finds more leaves them to the next pass.
SUSPECTS_MAX_COUNT = 16_384


class SweepRecord(PassRecord):
    """Where the pass over one drive stands. A new drive is due at once."""

    rested: float = PERIOD_SECONDS
    block: bytes = b""
    index: int = -1
    """The last fragment seen; -1 at the start of a pass."""
    suspects: dict[bytes, float] = msgspec.field(default_factory=dict)
    """Contents that were called GONE once, and how long ago, counted as `rested` is."""


def due(record: SweepRecord) -> bool:
    """Whether the next pass should begin: sooner when there are suspects to look at again."""
    return record.rested >= (SWEEP_GAP_SECONDS if record.suspects else PERIOD_SECONDS)


def ripe(record: SweepRecord) -> frozenset[ContentId]:
    """The suspects that a second GONE condemns."""
    return frozenset(ContentId(content) for content, age in record.suspects.items() if age >= SWEEP_GAP_SECONDS)


def aged(record: SweepRecord, seconds: float) -> None:
    """Let time pass."""
    record.rested += seconds
    record.suspects = {content: age + seconds for content, age in record.suspects.items()}


@dataclass(frozen=True, slots=True)
class Listed:
    """A fragment of a listing with what its tag says."""

    info: FragmentInfo
    tagged: TaggedContent


@dataclass(slots=True)
class Verdict:
    """What to do about a page of a listing."""

    delete: list[FragmentKey] = field(default_factory=list)
    suspect: set[ContentId] = field(default_factory=set)
    """Contents to suspect from now on."""
    clear: set[ContentId] = field(default_factory=set)
    """Contents that the rows know after all."""


def judge(
    page: Iterable[Listed],
    liveness: Mapping[ContentId, Liveness],
    ripe: Container[ContentId],
) -> Verdict:
    """What to do about the fragments of `page`; `ripe` are the contents that were called GONE long enough ago."""
    verdict = Verdict()
    for listed in page:
        content = listed.tagged.content
        state = liveness[content]
        if state is not Liveness.GONE:
            verdict.clear.add(content)
        elif content in ripe:
            verdict.delete.append(listed.info.key)
        else:
            verdict.suspect.add(content)
    return verdict


@dataclass(slots=True)
class SweepCounts:
    seen: int = 0
    deleted: int = 0
    unattributable: int = 0
    """Fragments whose tag does not open: not ours to delete."""


class Sweeper(Passes[SweepRecord]):
    """The worker, one for each drive. One step is one page of the listing."""

    def __init__(
        self,
        drive: Drive,
        catalogue: Catalogue,
        open_tag: TagOpener,
        clock: Clock,
    ) -> None:
        super().__init__(f"sweep {drive.id.hex()[:8]}", SweepRecord, PERIOD_SECONDS, catalogue, clock)
        self._drive = drive
        self._open_tag = open_tag
        self._ripe: frozenset[ContentId] | None = None
        """Since the pass began, or was taken up again."""
        self.counts = SweepCounts()

    def status(self) -> str:
        counts = self.counts
        said = f"{counts.seen} fragments seen, {counts.deleted} deleted"
        return said + f", {counts.unattributable} unattributable" if counts.unattributable else said

    def _age(self, record: SweepRecord, seconds: float) -> None:
        aged(record, seconds)

    def _due(self, record: SweepRecord) -> bool:
        return due(record)

    def _begin(self, record: SweepRecord) -> None:
        record.block, record.index = b"", -1
        self._ripe = None
        self.counts = SweepCounts()

    async def _step(self, record: SweepRecord) -> bool:
        if self._ripe is None:
            self._ripe = ripe(record)
        after = FragmentKey(BlockId(record.block), record.index) if record.index >= 0 else None
        page = await self._drive.list(after, PAGE_FRAGMENTS)
        await self._act(record, self._open(page), self._ripe)
        self.counts.seen += len(page)
        if page:
            record.block, record.index = page[-1].key
        return bool(page)

    def _end(self, record: SweepRecord) -> None:
        """Suspects that were ripe have been dealt with; whatever is left of them is suspected anew."""
        dealt_with = self._ripe or frozenset()
        record.suspects = {content: age for content, age in record.suspects.items() if content not in dealt_with}

    def _open(self, page: Sequence[FragmentInfo]) -> list[Listed]:
        listed = []
        for info in page:
            try:
                listed.append(Listed(info, attribute(self._open_tag, info.key.block, info.tag)))
            except Corrupt:
                self.counts.unattributable += 1
        return listed

    async def _act(self, record: SweepRecord, listed: Sequence[Listed], ripe: Container[ContentId]) -> None:
        contents = list({one.tagged.content for one in listed})
        liveness = dict(zip(contents, await self._catalogue.liveness(contents), strict=True)) if contents else {}
        verdict = judge(listed, liveness, ripe)
        if verdict.delete:
            await self._drive.delete(verdict.delete)
            self.counts.deleted += len(verdict.delete)
        for content in verdict.clear:
            record.suspects.pop(content, None)
        for content in verdict.suspect:
            if len(record.suspects) < SUSPECTS_MAX_COUNT:
                record.suspects.setdefault(content, 0.0)
