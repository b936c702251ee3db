"""Collection: deletes the fragments of condemned contents once their grace is over, then forgets the contents.

Rules:

- Before every batch of deletions the rows are asked again whether the content is still condemned: a metadata restore
  may have brought it back.
- A content is forgotten after one walk that listed all of its blocks. What of them could not be deleted (a drive that
  does not answer) is then GONE by its tag, and the sweep deletes it whenever it comes to light.
- One whose blocks cannot all be listed while drives are away is set aside, told of, and tried again: the sweep would
  take longer, and would never know what a recode left of a content that lives. It holds nobody else up. Where inner
  nodes are lost for good it is forgotten, and the sweep has the rest.
- The walk yields children before their parent, so a walk that was killed finds the rest again. A crash within a batch
  may orphan children whose parent went first: the sweep again.
- When space is short the grace gives way: room for new writes is worth more than old backups.
"""

import logging
from collections.abc import AsyncIterator, Mapping, Sequence

from holdfast.cluster.heal import LiveLayouts, delete_everywhere
from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, HoldfastError, NotFound, PreconditionFailed, Unavailable
from holdfast.core.ids import ContentId, DriveId
from holdfast.core.limits import MIB
from holdfast.drives.interface import Drive, DriveUsage, FragmentKey
from holdfast.erasure.code import BlockRef
from holdfast.upkeep.interface import Catalogue, Condemned, Liveness, StoredBlock
from holdfast.upkeep.progress import Record, Saver
from holdfast.upkeep.walk import Batch, End, Walk, next_batch
from holdfast.upkeep.worker import TRANQUILITY_MENDING, TRANQUILITY_TIDYING, State, Wake

_log = logging.getLogger(__name__)

# Unreferenced blocks are kept this long unless set otherwise, so that any younger metadata backup restores whole.
GRACE_DEFAULT_SECONDS = 3600.0

# A drive with less than this share free is short of space: writes would begin to fail before the next look.
SPACE_SHORT_FRACTION = 0.05

# Nor does a small drive take writes with less than this: room that puts leave free, and that the metadata's log is made
# in ahead of time.
SPACE_SHORT_MIN_BYTES = 64 * MIB

# Deletions are small records that share one sync: this many cost about as much as one.
BATCH_BLOCKS = 256

# One scan of the rows and a look at each drive's space.
LOOK_SECONDS = 10.0

# While space is short, whoever deletes wants it back soon.
SHORT_LOOK_SECONDS = 2.0

# What was set aside is tried again so often: about as often as somebody brings a drive back.
ASIDE_SECONDS = 600.0

# A content whose inner nodes cannot be read is forgotten so long after its grace: who has not brought a drive back
# within a day has most likely lost it.
UNREAD_KEPT_SECONDS = 24 * 3600.0

# More than these are counted, and not told of one by one.
ASIDE_LOGGED_COUNT = 10


def space_is_short(usages: Sequence[DriveUsage]) -> bool:
    """Whether any drive has so little room that the grace should give way."""
    return any(usage.free < max(usage.total * SPACE_SHORT_FRACTION, SPACE_SHORT_MIN_BYTES) for usage in usages)


def horizon(now_ns: int, grace_seconds: float, *, short: bool) -> int:
    """Contents condemned before this moment may be collected."""
    return now_ns + 1 if short else now_ns - int(grace_seconds * 1e9)


class CollectRecord(Record):
    """What `status` is told. Nothing is resumed by it: the condemned rows are the progress."""

    grace_gave_way: bool = False
    aside: int = 0
    """Contents that cannot be collected yet."""


class Collector:
    """The worker. One step deletes one batch of blocks, of one large content or of many small ones."""

    name = "collection"

    def __init__(
        self,
        catalogue: Catalogue,
        drives: Mapping[DriveId, Drive],
        layouts: LiveLayouts,
        clock: Clock,
        grace_seconds: float = GRACE_DEFAULT_SECONDS,
    ) -> None:
        self._catalogue = catalogue
        self._drives = drives
        self._layouts = layouts
        self._clock = clock
        self._grace_seconds = grace_seconds
        self._saver = Saver(catalogue, self.name, clock)
        self._wake = Wake(clock)
        self._walk: Walk | None = None
        self._collected = 0
        self._aside: dict[ContentId, float] = {}
        """What could not be collected, and when it is tried again."""
        self._away: set[DriveId] = set()
        """Drives that did not answer in this walk: one that hangs is waited for once."""
        self._told: CollectRecord | None = None

    @property
    def grace_gave_way(self) -> bool:
        """Whether contents are collected before their grace is over, because space is short."""
        return self._told is not None and self._told.grace_gave_way

    @property
    def tranquility(self) -> float:
        return TRANQUILITY_MENDING if self.grace_gave_way else TRANQUILITY_TIDYING

    def status(self) -> str:
        said = f"{self._collected} contents collected"
        if self._aside:
            said += f", {len(self._aside)} cannot be yet"
        return said + "; space is short, nothing is kept for older backups" if self.grace_gave_way else said

    def wake(self) -> None:
        """Look now: something was condemned, or space ran out."""
        self._wake.set()

    async def work(self) -> State:
        if self._walk is None:
            self._walk = self._walk_condemned(await self._horizon())
        walk, self._walk = self._walk, None  # a step that fails begins again with the oldest
        batch = await next_batch(walk, BATCH_BLOCKS)
        await self._collect(batch)
        if not batch.more:
            return State.IDLE
        self._walk = walk
        return State.BUSY

    async def wait_for_work(self) -> None:
        await self._wake.wait(SHORT_LOOK_SECONDS if self.grace_gave_way else LOOK_SECONDS)

    async def _horizon(self) -> int:
        usages = []
        for drive in self._drives.values():
            try:
                usages.append(await drive.usage())
            except Unavailable:
                continue
        short = space_is_short(usages)
        record = CollectRecord(grace_gave_way=short, aside=len(self._aside))
        if record != self._told:
            await self._saver.keep(record)
            self._told = record
        return horizon(self._clock.now_ns(), self._grace_seconds, short=short)

    async def _walk_condemned(self, before_ns: int) -> AsyncIterator[StoredBlock | End]:
        """Every block of every content past its grace, and the end of each that was listed whole."""
        begun = self._clock.monotonic()
        self._away.clear()
        after: Condemned | None = None
        while page := await self._catalogue.condemned(before_ns, after=after):
            for condemned in page:
                if self._aside.get(condemned.content, begun) <= begun:
                    async for block in self._blocks(condemned):
                        yield block
                yield End(condemned.content, walked=condemned.content not in self._aside)
            after = page[-1]
        # What was due and did not come up was collected by another process, or lives again.
        self._aside = {content: due for content, due in self._aside.items() if due > begun}

    async def _blocks(self, condemned: Condemned) -> AsyncIterator[StoredBlock]:
        """The blocks of a content, which is set aside when they cannot all be listed: then without those by which the
        others will be found."""
        content = condemned.content
        kept_ns = int((self._grace_seconds + UNREAD_KEPT_SECONDS) * 1e9)
        is_old = self._clock.now_ns() - condemned.since_ns >= kept_ns
        unread: HoldfastError | None = None
        try:
            async for block in self._catalogue.blocks(content):
                if unread is None and block.unread is not None and not is_old and await self._may_come_back(block.ref):
                    unread = block.unread
                if unread is None or block.whole:
                    yield block
        except NotFound:
            pass  # another process was faster
        except Corrupt as error:
            self._set_aside(content, error)
            return
        if unread is None:
            self._aside.pop(content, None)
        else:
            self._set_aside(content, unread)

    async def _may_come_back(self, ref: BlockRef) -> bool:
        """Whether a drive is away that could hold some of the block."""
        homes = {drive for layout in await self._layouts.live() for drive in layout.drives(ref)}
        if not homes <= self._drives.keys() - self._away:
            return True
        for home in homes:
            try:
                await self._drives[home].has([FragmentKey(ref.id, 0)])
            except Unavailable:
                self._away.add(home)
                return True
        return False

    def _set_aside(self, content: ContentId, reason: HoldfastError) -> None:
        if content not in self._aside and len(self._aside) < ASIDE_LOGGED_COUNT:
            _log.warning("content %s was deleted and cannot be collected yet: %s", content.hex(), reason)
        self._aside[content] = self._clock.monotonic() + ASIDE_SECONDS

    async def _collect(self, batch: Batch) -> None:
        ended = [end.content for end in batch.ended if end.walked]
        contents = list({block.tagged.content for block in batch.blocks}.union(ended))
        if not contents:
            return
        liveness = await self._catalogue.liveness(contents)
        doomed = {content for content, state in zip(contents, liveness, strict=True) if state is Liveness.CONDEMNED}
        # What a silent drive keeps, the sweep finds when it is back.
        await delete_everywhere(self._drives, [b.ref for b in batch.blocks if b.tagged.content in doomed])
        for content in ended:
            if content in doomed:
                await self._forget(content)

    async def _forget(self, content: ContentId) -> None:
        try:
            await self._catalogue.forget(content)
        except PreconditionFailed:
            return  # it lives again: a restore came between
        except HoldfastError as error:
            self._set_aside(content, error)
            return
        self._collected += 1
