"""One drive: a durable map from fragment keys to fragments that anybody can check.

Guarantees, for every implementation (`testing.drive_suite` holds them to it):

- When `put` returns, every fragment of the call is on stable storage and every process that has the drive open reads
  it. When it raises, any of them may be there or not, but none in part.
- When `delete` returns, the deletion is on stable storage and will not be undone by a rebuild of the index.
- `get` returns bytes whose checksum held, or raises. It never returns wrong bytes.
- Putting a key that is there is no error and changes nothing that can be seen but the tag, which becomes the newer
  one: a block's id commits to the bytes, so they are the same.
- A cancelled call leaves no fragment in part; whether its fragments are there is unknown to the caller.
- A drive that failed a sync answers NodeDown to writes from then on. It is never retried on the same segment.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import BlockId, Buffer, DriveId
from holdfast.core.limits import LEAF_BYTES
from holdfast.core.ranges import ByteRange


class FragmentKey(NamedTuple):
    """Which fragment: ordered by block id, then index, as the drive lists them."""

    block: BlockId
    index: int  # type: ignore[assignment]  # a tuple has a method of that name, which nobody needs here


class Fragment(Struct, frozen=True):
    """What one drive holds of a block."""

    key: FragmentKey
    commitment: bytes
    """Encoded: docs/formats/commitment.md. Its hash is the block's id, and it holds this fragment's Merkle root."""
    leaves: bytes
    """BLAKE3 hashes of the payload's 64 KiB leaves, one after the other, 32 bytes each: what a range is checked by."""
    tag: bytes
    """Sealed by the owner, opaque to the drive, at most TAG_MAX_BYTES."""
    payload: Buffer


class FragmentPart(Struct, frozen=True):
    """A range of a fragment's payload, rounded out to whole leaves, with what checks it."""

    key: FragmentKey
    commitment: bytes
    leaves: bytes
    tag: bytes
    length: int
    """Bytes of the whole payload."""
    start: int
    """Where `data` begins in the payload: a multiple of LEAF_BYTES."""
    data: Buffer


def whole_leaves(range: ByteRange | None, length: int) -> tuple[int, int]:
    """Start and end of what `get` answers of a payload of `length` bytes: the leaves that the range lies in, or all.

    Raises InvalidRequest when the range reaches past the end.
    """
    if range is None:
        return 0, length
    if range.end > length:
        raise InvalidRequest(f"range {range.start}-{range.end} reaches past the payload's {length} bytes")
    return range.start // LEAF_BYTES * LEAF_BYTES, min(length, -(-range.end // LEAF_BYTES) * LEAF_BYTES)


class FragmentInfo(Struct, frozen=True):
    """A line of a drive's listing."""

    key: FragmentKey
    length: int
    tag: bytes


class DriveUsage(Struct, frozen=True):
    """Bytes of the drive, as the drive sees them."""

    total: int
    free: int
    """What writes may still use, the reserve already taken off."""
    live: int
    """Records that can be read."""
    dead: int
    """Records that compaction would give back."""
    fragments: int


TAG_MAX_BYTES = 255
"""A tag is a sealed content id, position and epoch: about 80 bytes. One length byte bounds it."""


class Drive(Protocol):
    """One drive. Any number of calls may be in flight; `close` waits for them."""

    @property
    def id(self) -> DriveId: ...

    async def put(self, fragments: Sequence[Fragment]) -> None:
        """Store fragments; durable on return. Raises Full, NodeDown, InvalidRequest (a limit)."""
        ...

    async def get(self, key: FragmentKey, range: ByteRange | None = None) -> FragmentPart:
        """Read a fragment, or the leaves that cover a range of its payload.

        The record's checksums were verified (for a range: those of its leaves). Raises NotFound, Corrupt, NodeDown, and
        InvalidRequest when the range reaches past the payload.
        """
        ...

    def get_at_once(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        """As `get` of a whole fragment, if nothing need be waited for: it is in memory. May be called from any thread.

        The payload may be read `into` a view of just its length: then that view is the part's `data`. Raises
        BlockingIOError when it would have to wait; else as `get`.
        """
        ...

    def get_here(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        """As `get_at_once`, but it waits for the disk, for as long as that takes: for threads that may.

        Raises BlockingIOError for a drive that cannot be had so; else as `get`.
        """
        ...

    def expect(self, key: FragmentKey) -> None:
        """It will be read soon: the disk may begin. Waits as `get_here` may, and raises nothing."""
        ...

    async def has(self, keys: Sequence[FragmentKey]) -> list[bool]:
        """Which of `keys` the index holds, in their order. Reads no payload."""
        ...

    async def delete(self, keys: Sequence[FragmentKey]) -> None:
        """Delete fragments; durable on return. A missing one is no error. Works on a full drive."""
        ...

    async def list(self, after: FragmentKey | None = None, limit: int = 1000) -> list[FragmentInfo]:
        """A page of what the index holds, in key order, from behind `after`; the empty page is the end."""
        ...

    async def usage(self) -> DriveUsage: ...

    async def close(self) -> None: ...
