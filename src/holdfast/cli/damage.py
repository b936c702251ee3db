"""From damage that a read met to a row in the repair outbox.

A reader knows the block, not whose it is; the tag of any good fragment says that. Reports are noted on the spot and
written down a moment later, in batches, off the reader's path. What is lost when the process dies is found again by
the next reader, or by scrub.
"""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial

from holdfast.cli.catalogue import RowCatalogue, open_tag
from holdfast.cli.keys import HeldKeys
from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError
from holdfast.core.ids import DriveId
from holdfast.drives.interface import Drive, FragmentKey
from holdfast.erasure import BlockRef
from holdfast.upkeep.interface import StoredBlock, TagOpener

# A drive that is gone damages every block that is read: more than this many wait for scrub and audit to find them.
NOTED_MAX_COUNT = 10_000

BATCH_COUNT = 100
PAUSE_SECONDS = 0.5

_LOGGER = logging.getLogger(__name__)


class DamageReports:
    """Collects what a cluster's reads report; `note` is its `on_damage`."""

    def __init__(self, drives: Mapping[DriveId, Drive], keys: HeldKeys, clock: Clock) -> None:
        self._drives = drives
        self._keys = keys
        self._clock = clock
        self._noted: dict[bytes, BlockRef] = {}
        self._any = asyncio.Event()

    def note(self, ref: BlockRef, index: int, drive: DriveId | None, reason: str) -> None:
        """Remember that a block is not whole. Takes no time."""
        if len(self._noted) < NOTED_MAX_COUNT and ref.id not in self._noted:
            _LOGGER.info("fragment %d of block %s: %s", index, ref.id.hex()[:16], reason)
            self._noted[ref.id] = ref
            self._any.set()

    async def run(self, catalogue: RowCatalogue) -> None:
        """Write down what was noted, until cancelled."""
        while True:
            await self._any.wait()
            batch = [self._noted.pop(block) for block in list(self._noted)[:BATCH_COUNT]]
            if not self._noted:
                self._any.clear()
            # Made anew for each batch: a rotated keyring opens the tags of its new epoch too.
            tags = partial(open_tag, self._keys.keyring.tag_opener())
            try:
                found = [await self._attribute(ref, tags) for ref in batch]
                await catalogue.report_damage([block for block in found if block is not None])
            except HoldfastError as error:
                _LOGGER.warning("damage could not be reported: %s", error)
            await self._clock.sleep(PAUSE_SECONDS)

    async def _attribute(self, ref: BlockRef, tags: TagOpener) -> StoredBlock | None:
        """The block with its content, from the first tag that opens; None when no fragment tells."""
        for index in range(ref.code.width):
            for drive in list(self._drives.values()):
                key = FragmentKey(ref.id, index)
                try:
                    if not (await drive.has([key]))[0]:
                        continue
                    part = await drive.get(key)
                    tagged = tags(part.tag)
                    if tagged.block == ref.id:
                        return StoredBlock(tagged, ref, part.tag)
                except HoldfastError:
                    continue
        return None
