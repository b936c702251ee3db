"""Scrub: reads every fragment of a drive and checks it, so that rot is found while the others still can mend it.

Rules:

- A fragment is good when its record can be read, its payload is what its commitment says (erasure checks that without
  any key), and its tag opens. A bad one whose content lives is told to repair; scrub itself changes nothing.
- A fragment that is gone when its turn comes was deleted meanwhile; one of a content that is no longer alive is the
  sweep's business.
- Passes are spread over PERIOD_SECONDS. The position is kept, so that a restart goes on where it was.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, NotEnoughFragments, NotFound
from holdfast.core.ids import BlockId
from holdfast.core.limits import MIB
from holdfast.drives.interface import Drive, FragmentInfo, FragmentKey
from holdfast.erasure import check_fragment
from holdfast.upkeep.interface import Catalogue, Liveness, TagOpener, attribute
from holdfast.upkeep.progress import Passes, PassRecord

# Field studies (Bairavasundaram 2008, Schroeder 2010) find latent errors within weeks; a month is what ZFS and Ceph
# users settled on, and reads a 10 TB drive at 4 MB/s.
PERIOD_SECONDS = 30 * 24 * 3600.0

# One step: long enough that its overhead vanishes, short enough that the throttle is smooth.
STEP_BYTES = 16 * MIB
STEP_FRAGMENTS = 256


class ScrubRecord(PassRecord):
    """Where the pass over one drive stands. A new drive was just written, so its first pass is a period away."""

    block: bytes = b""
    index: int = -1
    """The last fragment checked; -1 at the start of a pass."""
    checked: int = 0
    checked_bytes: int = 0
    bad: int = 0
    unattributable: int = 0
    """Of this pass, or of the last one when it has ended. Fragments whose tag does not open are never repaired."""
    passes: int = 0


@dataclass(frozen=True, slots=True)
class Checked:
    """What became of one fragment."""

    info: FragmentInfo
    bad: bool


async def check(drive: Drive, info: FragmentInfo) -> Checked:
    """Read a fragment whole and check it. Raises NodeDown."""
    try:
        part = await drive.get(info.key)
        await asyncio.to_thread(
            check_fragment, info.key.block, info.key.index, part.commitment, part.leaves, 0, part.data, part.length
        )
    except NotFound:
        return Checked(info, bad=False)
    except Corrupt:
        return Checked(info, bad=True)
    return Checked(info, bad=part.start != 0 or len(part.data) != part.length)


def step(page: Sequence[FragmentInfo]) -> Sequence[FragmentInfo]:
    """As many fragments from the start of a page as one step should read: at least one."""
    total = 0
    for count, info in enumerate(page):
        total += info.length
        if total > STEP_BYTES:
            return page[: max(count, 1)]
    return page


class Scrubber(Passes[ScrubRecord]):
    """The worker, one for each drive."""

    def __init__(
        self, drive: Drive, catalogue: Catalogue, open_tag: TagOpener, clock: Clock, *, name: str | None = None
    ) -> None:
        """`name` is what its progress is kept under: a pass by hand has its own, beside the one in the background."""
        super().__init__(name or f"scrub {drive.id.hex()[:8]}", ScrubRecord, PERIOD_SECONDS, catalogue, clock)
        self._drive = drive
        self._open_tag = open_tag

    @property
    def checked(self) -> int:
        """Fragments checked in this pass."""
        return self.record.checked if self.record is not None else 0

    def status(self) -> str:
        record = self.record
        if record is None or not (record.under_way or record.passes):
            return "no pass yet"
        said = f"{record.checked} fragments checked, {record.bad} bad"
        if record.unattributable:
            said += f", {record.unattributable} unattributable"
        return said if record.under_way else f"last pass: {said}"

    def _begin(self, record: ScrubRecord) -> None:
        record.block, record.index = b"", -1
        record.checked = record.checked_bytes = record.bad = record.unattributable = 0

    async def _step(self, record: ScrubRecord) -> bool:
        after = FragmentKey(BlockId(record.block), record.index) if record.index >= 0 else None
        page = step(await self._drive.list(after, STEP_FRAGMENTS))
        for info in page:
            checked = await check(self._drive, info)
            record.checked += 1
            record.checked_bytes += info.length
            await self._judge(record, checked)
        if page:
            record.block, record.index = page[-1].key
        return bool(page)

    def _end(self, record: ScrubRecord) -> None:
        record.passes += 1

    async def _judge(self, record: ScrubRecord, checked: Checked) -> None:
        """Tell repair of a bad fragment, if its content lives."""
        try:
            tagged = attribute(self._open_tag, checked.info.key.block, checked.info.tag)
        except Corrupt:
            record.unattributable += 1
            return
        if not checked.bad:
            return
        record.bad += 1
        [liveness] = await self._catalogue.liveness([tagged.content])
        if liveness is not Liveness.LIVE:
            return
        try:
            block = await self._catalogue.find(tagged, checked.info.key.block)
        except (NotFound, Corrupt, NotEnoughFragments):
            # The content has no such block, or the tree above it cannot be read: for that alone the pass must not stop.
            return
        await self._catalogue.report_damage([block])
