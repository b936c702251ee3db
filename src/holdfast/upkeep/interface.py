"""What upkeep is handed: the owner's rows, the tags' meaning, and the drives' own chores.

Upkeep moves bytes between drives and deletes them; it never reads a key and never decides by itself what lives.
The rows do, and they are seen through `Catalogue`, which `objects` implements.

Invariants that upkeep stands on:

- A content id is drawn once and never used again. A block belongs to one content only: whoever writes the same
  bytes for another content (recode, copy by value) seals them anew, so the block has another id.
- A content goes LIVE -> CONDEMNED -> GONE and never back, but for a metadata restore, which brings back an older
  moment as a whole.
- Blocks that are written ahead of their row count as LIVE for as long as the session that writes them is not expired
  (the content's id names it); once it is, no publish of that session can succeed any more.
- Nothing is deleted on UNKNOWN. A catalogue that doubts its own history answers UNKNOWN for everything.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from holdfast.cluster.heal import LiveLayouts
from holdfast.core.errors import Corrupt, HoldfastError
from holdfast.core.ids import BlockId, Buffer, ContentId, DriveId, SessionId
from holdfast.drives.interface import DriveUsage
from holdfast.erasure.code import BlockRef, Code

# A session whose heartbeat stood still for this long, by the clock of whoever watches it, while heartbeats could be
# written, is expired. Long enough for a process that swaps or is being debugged, short enough that its leavings do not
# fill the drives.
SESSION_SILENCE_SECONDS = 300.0

# The sweep looks at a fragment twice, at least this far apart, before it believes that its content is gone. Longer
# than a session's silence, so that what was written just before its session was expired has landed by then.
SWEEP_GAP_SECONDS = 3600.0


class Liveness(Enum):
    """What the owner's rows say about a content."""

    LIVE = "live"
    """Something refers to it, or a session in flight owns it."""
    CONDEMNED = "condemned"
    """Nothing refers to it any more; its fragments wait for the end of the grace."""
    GONE = "gone"
    """The rows are sound and hold no such content."""
    UNKNOWN = "unknown"
    """The rows cannot tell: another owner's, or rows that cannot be trusted now."""


@dataclass(frozen=True, slots=True)
class TaggedContent:
    """What a fragment's tag says once opened. Upkeep compares `content` and hands the rest back, nothing more."""

    content: ContentId
    position: int
    """Where in the content's tree the block hangs; only the catalogue gives it a meaning."""
    epoch: int
    block: BlockId | None = None
    """The block that the tag was sealed for; None where the rows say it, and not a tag."""


class TagOpener(Protocol):
    """Opens a tag. Pure and cheap: it is called once for every fragment of a listing."""

    def __call__(self, tag: Buffer) -> TaggedContent:
        """Raises Corrupt when the tag was not sealed by this store."""
        ...


def attribute(open_tag: TagOpener, block: BlockId, tag: Buffer) -> TaggedContent:
    """What the tag of a fragment of `block` says. Raises Corrupt when it is not ours, or was sealed for another block:
    whoever holds fragments must not be able to pass a living one off as garbage."""
    tagged = open_tag(tag)
    if tagged.block is not None and tagged.block != block:
        raise Corrupt("a tag of another block")
    return tagged


@dataclass(frozen=True, slots=True)
class ContentEntry:
    """A content that is to be kept."""

    content: ContentId
    code: Code
    """How its data blocks were asked to be spread; small blocks may be spread otherwise (their refs say how)."""
    length: int
    """Plain bytes: for progress and status, not for decisions."""
    layout_version: int
    """The newest layout that every one of its blocks is known to be placed by, as `placed` last said."""
    begun: bool = False
    """Whether a recode of it was begun and not ended."""


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """One block of a content, data or inner node."""

    tagged: TaggedContent
    ref: BlockRef
    tag: bytes
    """The tag its fragments carry, sealed: what a rebuilt fragment is written with."""
    unread: HoldfastError | None = None
    """For an inner node whose children could not be listed: why. They are missing from the walk then."""
    whole: bool = True
    """Whether all that hangs below it was listed; not if it is `unread`, or any node below it is."""


@dataclass(frozen=True, slots=True)
class RepairTask:
    """A row of the repair outbox: this block may lack fragments, or hold bad or misplaced ones."""

    key: bytes
    """The row's key: opaque, ordered by age."""
    token: bytes
    """The row's token: `repaired` removes only this state of it."""
    block: StoredBlock


@dataclass(frozen=True, slots=True)
class Condemned:
    content: ContentId
    since_ns: int
    """When it was condemned, by the wall clock of whoever did."""


@dataclass(frozen=True, slots=True)
class SessionBeat:
    session: SessionId
    beat: int
    """Counts up while the process that holds the session is alive."""


@dataclass(frozen=True, slots=True)
class Recoded:
    """What one call wrote anew."""

    bytes: int
    """Plain ones; 0 when there was nothing to do: it has the code already, or is no longer LIVE."""
    whole: bool
    """Whether the content is done with; else there are more pieces."""


class Catalogue(Protocol):
    """The owner's rows. Every call may raise Unavailable and Corrupt; none caches beyond the call."""

    async def liveness(self, contents: Sequence[ContentId]) -> list[Liveness]:
        """In the order of `contents`; each one's row and its session's are seen at one moment."""
        ...

    def contents(self, after: ContentId | None = None) -> AsyncIterator[ContentEntry]:
        """Every LIVE content that has a row and blocks of its own, in the order of ids, from behind `after`. Contents
        that come and go while the walk runs may be in it or not."""
        ...

    def blocks(self, content: ContentId) -> AsyncIterator[StoredBlock]:
        """Every block of a LIVE or CONDEMNED content, children before their parent, always in the same order.

        An inner node that cannot be read is yielded with `unread` and its children are left out; the walk goes on.
        Empty for a content that is inline. Raises NotFound when there is no such content.
        """
        ...

    async def find(self, tagged: TaggedContent, block: BlockId) -> StoredBlock:
        """The block that an opened tag speaks of. Raises NotFound when that content has no such block."""
        ...

    async def condemned(self, before_ns: int, *, after: Condemned | None = None, limit: int = 100) -> list[Condemned]:
        """CONDEMNED contents whose `since_ns` is below `before_ns`, oldest first, from behind `after`."""
        ...

    async def forget(self, content: ContentId) -> None:
        """Drop the row of a CONDEMNED content: it is GONE from now on. No error when there is none.

        Raises PreconditionFailed when the content is LIVE.
        """
        ...

    async def placed(self, content: ContentId, layout_version: int) -> None:
        """Note that every block of a content is where that layout wants it. Never goes back; no error when GONE."""
        ...

    async def sessions(self) -> list[SessionBeat]:
        """Every session, this process's own included."""
        ...

    async def expire_session(self, session: SessionBeat) -> bool:
        """End a session unless its beat moved on: its publishes fail from now on, and what it wrote ahead of a row is
        no longer LIVE. Whether it was ended."""
        ...

    async def check_writable(self) -> None:
        """Write something of no consequence, that a full store takes as it takes a heartbeat. Raises Unavailable when
        no heartbeat could be written now."""
        ...

    async def damaged(self, *, after: bytes | None = None, limit: int = 100) -> list[RepairTask]:
        """The repair outbox in key order, from behind the key `after`."""
        ...

    async def count_damaged(self) -> int:
        """How many rows the repair outbox has."""
        ...

    async def repaired(self, task: RepairTask) -> None:
        """Drop the task's row, unless it was reported anew since it was read (its token differs). Missing is fine."""
        ...

    async def report_damage(self, blocks: Sequence[StoredBlock]) -> None:
        """Put blocks into the repair outbox, one row for a block: an existing row gets a new token."""
        ...

    async def recode(self, content: ContentId, code: Code) -> Recoded:
        """Write the next piece of the content anew with `code`; with the last one swap the row and release the old
        tree. A crash, or another call, goes on behind the last piece; readers see the old until all is there. One that
        was begun and has `code` itself gives its pieces up. Raises NotFound."""
        ...

    async def load_progress(self, name: str) -> bytes:
        """What `save_progress` kept under that name. Raises NotFound."""
        ...

    async def save_progress(self, name: str, data: bytes) -> None:
        """Keep a worker's state durably; the last writer wins."""
        ...


class Layouts(LiveLayouts, Protocol):
    """The layouts that are in use, and the end of those that are not any more."""

    async def retire(self, version: int) -> None:
        """Every fragment has left that layout: readers need not try it any more. Missing is fine.

        Raises PreconditionFailed for the newest one.
        """
        ...


class Compactable(Protocol):
    """A drive that can give back the space of dead records; a node's drive does that by itself."""

    @property
    def id(self) -> DriveId: ...

    async def usage(self) -> DriveUsage:
        """Raises NodeDown."""
        ...

    async def compact(self, *, thoroughly: bool) -> bool:
        """One bounded step; `thoroughly` also for little gain. True when there may be more to do.

        Raises Full, NodeDown, Corrupt.
        """
        ...
