"""Walks over contents and their blocks, cut into batches: many small contents, or a part of a large one.

A batch is the unit of a step: its blocks are looked up with one question to each drive. A content's end comes behind
its last block, so whoever remembers the last end goes on from there after a restart.
"""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from holdfast.core.errors import Corrupt, NotFound
from holdfast.core.ids import ContentId
from holdfast.upkeep.interface import Catalogue, ContentEntry, StoredBlock

# Contents that end within one batch, so that a walk over contents that need nothing still comes up for air.
BATCH_ENDS = 256


@dataclass(frozen=True, slots=True)
class End:
    """Behind the last block of a content."""

    content: ContentId
    entry: ContentEntry | None = None
    """For a walk over contents that are kept."""
    walked: bool = True
    """Whether its blocks were walked; False when the walk had no need of them or it had just gone."""
    unread: Corrupt | None = None
    """Why none of its blocks could be listed: its row is damaged."""


Walk = AsyncIterator[StoredBlock | End]


@dataclass(slots=True)
class Batch:
    blocks: list[StoredBlock] = field(default_factory=list)
    ended: list[End] = field(default_factory=list)
    more: bool = True
    """Whether the walk may go on."""


async def next_batch(walk: Walk, blocks: int) -> Batch:
    """The next of a walk, up to so many blocks."""
    batch = Batch()
    while len(batch.blocks) < blocks and len(batch.ended) < BATCH_ENDS:
        try:
            met = await anext(walk)
        except StopAsyncIteration:
            batch.more = False
            break
        if isinstance(met, End):
            batch.ended.append(met)
        else:
            batch.blocks.append(met)
    return batch


async def walk_kept(
    catalogue: Catalogue, after: ContentId | None, wanted: Callable[[ContentEntry], bool]
) -> AsyncIterator[StoredBlock | End]:
    """The blocks of every content that is `wanted`, and the end of each, wanted or not."""
    async for entry in catalogue.contents(after):
        walked = wanted(entry)
        unread: Corrupt | None = None
        if walked:
            try:
                async for block in catalogue.blocks(entry.content):
                    yield block
            except NotFound:
                walked = False  # released and collected since the listing
            except Corrupt as error:
                unread = error
        yield End(entry.content, entry, walked, unread)
