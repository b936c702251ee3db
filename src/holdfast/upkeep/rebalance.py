"""Rebalance: brings every content to where the newest layout wants it, then retires the older layouts.

A drive that was added, drained, replaced, given another weight or declared lost is nothing but a new layout, so this
is the one worker for all of them. What can be copied is copied, what has no source left is rebuilt.

Rules:

- The rows say of each content which layout it is known to be placed by. A content that is behind is walked, healed
  block by block, and noted only when every block was whole; so a walk that was killed goes on where it was, and one
  that lost to a drive that went away comes back.
- Older layouts are retired only after a whole pass that found no content behind: writers that still followed an old
  one when the first pass began are caught by the second. What was published by an old one behind that pass is found by
  another, after which there is nothing more: a layout that is retired publishes nothing.
"""

import asyncio
from collections.abc import Callable, Sequence

from holdfast.cluster.heal import Healer, Placing
from holdfast.cluster.plan import plan_block
from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt
from holdfast.core.ids import ContentId
from holdfast.upkeep.interface import Catalogue, ContentEntry, Layouts, StoredBlock
from holdfast.upkeep.progress import Record, Saver, load
from holdfast.upkeep.walk import End, Walk, next_batch, walk_kept
from holdfast.upkeep.worker import TRANQUILITY_MENDING, State, Wake

# How soon a new layout is noticed when nobody says so.
LOOK_SECONDS = 30.0

# What waits for a drive is walked again this often; whoever brings the drive back wakes the worker.
WAITING_LOOK_SECONDS = 600.0

# Blocks of one step: looked up together, and moved a few at once.
BATCH_BLOCKS = 64
TOGETHER = 4


class RebalanceRecord(Record):
    """Where the pass stands."""

    layout_version: int = -1
    """The layout that the pass goes towards."""
    after: bytes = b""
    """The last content that was dealt with; empty at the start of a pass."""
    behind: int = 0
    """Contents of this pass that were behind when it met them."""
    settled_version: int = -1
    """The layout that a whole pass found every content placed by."""
    waiting: int = 0
    """Contents of this pass that wait for a drive, or for there to be enough of them."""
    waited: int = 0
    """Those of the pass before."""
    moved: int = 0
    moved_bytes: int = 0
    """Fragments written towards this layout."""


class Rebalancer:
    """The worker. One step is one batch of blocks."""

    name = "rebalance"
    tranquility = TRANQUILITY_MENDING

    def __init__(self, catalogue: Catalogue, layouts: Layouts, healer: Healer, clock: Clock) -> None:
        self._catalogue = catalogue
        self._layouts = layouts
        self._healer = healer
        self._saver = Saver(catalogue, self.name, clock)
        self._wake = Wake(clock)
        self._record: RebalanceRecord | None = None
        self._walk: Walk | None = None
        self._troubled: set[ContentId] = set()
        """Contents under way of which some block could not be brought home."""

    def status(self) -> str:
        record = self._record
        if record is None:
            return ""
        if record.settled_version >= record.layout_version:
            return f"layout {record.layout_version} reached: {record.moved} fragments moved" if record.moved else ""
        said = f"towards layout {record.layout_version}: {record.moved} fragments moved"
        waiting = max(record.waiting, record.waited)
        return f"{said}, {waiting} contents wait for a drive" if waiting else said

    def wake(self) -> None:
        self._wake.set()

    async def work(self) -> State:
        record = self._record = self._record or await load(self._catalogue, self.name, RebalanceRecord)
        layouts = await self._layouts.live()
        newest = layouts[0]
        if record.settled_version >= newest.version:
            if len(layouts) == 1:
                return State.IDLE
            # Said before it is done: who is killed in between looks once more, and not never.
            record.settled_version = -1
            await self._saver.keep(record)
            for old in layouts[1:]:
                await self._layouts.retire(old.version)
            return State.BUSY
        if record.layout_version != newest.version:
            self._begin(record, newest.version)
        walk, self._walk = self._walk, None  # a step that fails begins again behind the last content it finished
        if walk is None:
            self._troubled.clear()
            walk = walk_kept(self._catalogue, ContentId(record.after) if record.after else None, _behind(newest))
        batch = await next_batch(walk, BATCH_BLOCKS)
        await self._move(record, newest, batch.blocks)
        for end in batch.ended:
            await self._end_content(record, newest, end)
        if not batch.more:
            return await self._end_pass(record)
        self._walk = walk
        await self._saver.keep_seldom(record)
        return State.BUSY

    async def wait_for_work(self) -> None:
        waiting = self._record is not None and self._record.waited > 0
        await self._wake.wait(WAITING_LOOK_SECONDS if waiting else LOOK_SECONDS)

    def _begin(self, record: RebalanceRecord, version: int) -> None:
        record.layout_version, record.after = version, b""
        record.behind = record.waiting = record.waited = record.moved = record.moved_bytes = 0
        self._walk = None

    async def _move(self, record: RebalanceRecord, newest: Placing, blocks: Sequence[StoredBlock]) -> None:
        surveys = await self._healer.survey([block.ref for block in blocks], newest)
        todo = []
        for block, survey in zip(blocks, surveys, strict=True):
            if block.unread is not None:
                self._troubled.add(block.tagged.content)
            if not plan_block(block.ref.code, newest.drives(block.ref), survey).whole:
                todo.append((block, survey))
        for start in range(0, len(todo), TOGETHER):
            group = todo[start : start + TOGETHER]
            outcomes = await asyncio.gather(
                *(self._healer.heal(block.ref, block.tag, survey) for block, survey in group), return_exceptions=True
            )
            for (block, _), outcome in zip(group, outcomes, strict=True):
                if isinstance(outcome, Corrupt):
                    self._troubled.add(block.tagged.content)
                elif isinstance(outcome, BaseException):
                    raise outcome
                else:
                    record.moved += outcome.written
                    record.moved_bytes += outcome.written_bytes
                    if not outcome.whole:
                        self._troubled.add(block.tagged.content)

    async def _end_content(self, record: RebalanceRecord, newest: Placing, end: End) -> None:
        record.after = end.content
        if not end.walked:
            return
        record.behind += 1
        if end.content in self._troubled or end.unread is not None:
            self._troubled.discard(end.content)
            record.waiting += 1
        else:
            await self._catalogue.placed(end.content, newest.version)

    async def _end_pass(self, record: RebalanceRecord) -> State:
        if record.behind == 0:
            record.settled_version = record.layout_version
        record.after, record.behind = b"", 0
        record.waited, record.waiting = record.waiting, 0
        await self._saver.keep(record)
        # What waits for a drive is looked at again later; otherwise the pass that proves there is no more comes now.
        return State.IDLE if record.waited else State.BUSY


def _behind(newest: Placing) -> Callable[[ContentEntry], bool]:
    return lambda entry: entry.layout_version < newest.version
