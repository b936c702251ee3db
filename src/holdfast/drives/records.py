"""Records: how a fragment or a tombstone lies in a segment. Bytes only, no I/O. Format: docs/formats/fragment.md.

A record is a head (header, tag, commitment, leaves, one checksum for each 64 KiB of payload) and the payload. The head
has a checksum of its own, so a rotten payload hides neither whose it is nor where the next record begins, and a range
can be checked without the rest.

Invariants. A record is bound to its place: segment, generation and offset are under the head's checksum, so bytes
left over from elsewhere never pass for a record. Records of one group commit carry one commit number, which grows
along the segment; the first begins and the last ends on a 4 KiB boundary. `sequence` orders the records of one key
across segments: the highest is the truth. A record that compaction moves keeps its sequence.
"""

from enum import IntEnum
from struct import Struct

import msgspec
from xxhash import xxh3_64_intdigest

from holdfast.core.errors import Corrupt
from holdfast.core.ids import BlockId, Buffer
from holdfast.core.limits import KIB, LEAF_BYTES
from holdfast.drives.interface import TAG_MAX_BYTES, FragmentKey
from holdfast.drives.limits import COMMITMENT_MAX_BYTES, LEAF_HASH_BYTES, LEAVES_MAX_BYTES, PAYLOAD_MAX_BYTES

MAGIC = b"hfR\x01"
"""The last byte is the format's version."""

SEGMENT_ID_BYTES = 8

# What a disk writes as one: a later write into another page cannot tear an acknowledged record.
PAGE_BYTES = 4 * KIB

# Records start on multiples of this within a group commit.
RECORD_ALIGN_BYTES = 8

# magic, kind, tag bytes, index, commitment bytes, leaves count, payload bytes, span, generation, commit,
# sequence, offset, segment, block; then the head's checksum.
_HEADER = Struct("<4sBBHHHIIIIQQ8s32s")
_CHECKSUM = Struct("<Q")
HEADER_BYTES = _HEADER.size + _CHECKSUM.size

# A hash of the owner and a checksum of ours for each leaf.
_LEAF_CHECKSUM_BYTES = 8
HEAD_MAX_BYTES = (
    HEADER_BYTES
    + TAG_MAX_BYTES
    + COMMITMENT_MAX_BYTES
    + LEAVES_MAX_BYTES
    + LEAVES_MAX_BYTES // LEAF_HASH_BYTES * _LEAF_CHECKSUM_BYTES
)
SPAN_MAX_BYTES = HEAD_MAX_BYTES + PAYLOAD_MAX_BYTES + 2 * PAGE_BYTES


class Kind(IntEnum):
    FRAGMENT = 1
    TOMBSTONE = 2
    CLAIM = 3
    """Reserved: an owner's statement that a fragment must be kept."""


class Place(msgspec.Struct, frozen=True):
    """Where a record lies, and that it is this one: what the index keeps of it."""

    segment: bytes
    offset: int
    span: int
    """Bytes from its start to the next record, padding included."""


class Head(msgspec.Struct, frozen=True):
    """All of a record but its payload."""

    kind: Kind
    key: FragmentKey
    sequence: int
    commit: int
    place: Place
    tag: bytes
    commitment: bytes
    leaves: bytes
    checksums: bytes
    """xxh3-64 of each 64 KiB of the payload, 8 bytes each, little-endian."""
    payload_bytes: int

    @property
    def bytes(self) -> int:
        return head_bytes(len(self.tag), len(self.commitment), len(self.leaves), self.payload_bytes)


def leaf_count(payload_bytes: int) -> int:
    return -(-payload_bytes // LEAF_BYTES)


def head_bytes(tag: int, commitment: int, leaves: int, payload: int) -> int:
    """Bytes in front of the payload, by the lengths of its parts."""
    return HEADER_BYTES + tag + commitment + leaves + leaf_count(payload) * _LEAF_CHECKSUM_BYTES


def payload_checksums(payload: Buffer) -> bytes:
    if len(payload) <= LEAF_BYTES:
        return xxh3_64_intdigest(payload).to_bytes(8, "little") if payload else b""
    view = memoryview(payload)
    leaves = range(0, len(view), LEAF_BYTES)
    return b"".join(xxh3_64_intdigest(view[at : at + LEAF_BYTES]).to_bytes(8, "little") for at in leaves)


def check_payload(data: Buffer, checksums: bytes, first_leaf: int, where: str) -> None:
    """Raises Corrupt when `data`, which begins at a leaf, does not match its checksums."""
    count = leaf_count(len(data))
    if payload_checksums(data) != checksums[first_leaf * 8 : (first_leaf + count) * 8]:
        raise Corrupt(f"{where}: the payload does not match its checksums")


def aligned(length: int, to: int = RECORD_ALIGN_BYTES) -> int:
    """`length` rounded up to a multiple of `to`."""
    return -(-length // to) * to


def encode_head(head: Head, generation: int) -> bytes:
    """The bytes in front of the payload."""
    tag, commitment, leaves = head.tag, head.commitment, head.leaves
    header = _HEADER.pack(
        MAGIC,
        head.kind,
        len(tag),
        head.key.index,
        len(commitment),
        len(leaves) // LEAF_HASH_BYTES,
        head.payload_bytes,
        head.place.span,
        generation,
        head.commit,
        head.sequence,
        head.place.offset,
        head.place.segment,
        head.key.block,
    )
    variable = tag + commitment + leaves + head.checksums
    return header + _CHECKSUM.pack(xxh3_64_intdigest(header + variable)) + variable


def read_head(source: memoryview, segment: bytes, generation: int, offset: int) -> Head:
    """Decode the head at the start of `source`, which must be the record at `offset` of `segment`.

    `source` may hold more than the head. Raises Corrupt for anything else, whatever the bytes.
    """
    where = f"segment {segment.hex()} offset {offset}"
    if len(source) < HEADER_BYTES:
        raise Corrupt(f"{where}: the segment ends within a header")
    (magic, kind, tag_size, index, commitment_size, leaves_count, payload_bytes, span, *bound) = _HEADER.unpack_from(
        source
    )
    generation_there, commit, sequence, offset_there, segment_there, block = bound
    if magic != MAGIC:
        raise Corrupt(f"{where}: no record begins here")
    if (generation_there, offset_there, segment_there) != (generation, offset, segment):
        raise Corrupt(f"{where}: the record belongs to another place")
    leaves_size = leaves_count * LEAF_HASH_BYTES
    end = head_bytes(tag_size, commitment_size, leaves_size, payload_bytes)
    if end > len(source) or payload_bytes > PAYLOAD_MAX_BYTES or not end + payload_bytes <= span <= SPAN_MAX_BYTES:
        raise Corrupt(f"{where}: the record's lengths contradict each other")
    (checksum,) = _CHECKSUM.unpack_from(source, _HEADER.size)
    variable = bytes(source[HEADER_BYTES:end])
    if xxh3_64_intdigest(bytes(source[: _HEADER.size]) + variable) != checksum:
        raise Corrupt(f"{where}: the head does not match its checksum")
    try:
        kind = Kind(kind)
    except ValueError:
        raise Corrupt(f"{where}: a record of unknown kind {kind}: written by a newer version?") from None
    commitment_end = tag_size + commitment_size
    return Head(
        kind,
        FragmentKey(BlockId(block), index),
        sequence,
        commit,
        Place(segment, offset, span),
        variable[:tag_size],
        variable[tag_size:commitment_end],
        variable[commitment_end : commitment_end + leaves_size],
        variable[commitment_end + leaves_size :],
        payload_bytes,
    )
