"""Segments: the files that records are appended to, and how one is read back. Format: docs/formats/fragment.md.

A segment is a 4 KiB header, group commits, each from one 4 KiB boundary to another, and once it is closed a footer
that lists its records. The footer only saves time: without it, or when it does not match its checksum, the segment is
scanned.

Rules of a scan. A bad record ends nothing: the scan goes on at the next place where a record checks out. Commit
numbers never go down, so what a failed, longer commit left behind a later one is passed over. A commit is written only
after the one before is on stable storage, so only the last one can be torn: its records count only if their payloads
check out too, while a bad record anywhere else is rot, kept in view as damage.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import Struct, error

import msgspec
from xxhash import xxh3_64_intdigest

from holdfast.core.disk import File
from holdfast.core.errors import AlreadyExists, Corrupt, InvalidRequest
from holdfast.core.ids import BlockId, DriveId
from holdfast.core.limits import MIB
from holdfast.drives.interface import FragmentKey
from holdfast.drives.records import (
    HEAD_MAX_BYTES,
    MAGIC,
    PAGE_BYTES,
    RECORD_ALIGN_BYTES,
    SEGMENT_ID_BYTES,
    Head,
    Kind,
    Place,
    aligned,
    check_payload,
    read_head,
)

SEGMENTS_NAME = "segments"
"""The directory of them, on the drive."""

HEADER_MAGIC = b"hfS\x01"
FOOTER_MAGIC = b"hfF\x01"
TRAILER_MAGIC = b"hfT\x01"

# Large enough that a footer and an unlink are rare, small enough that compaction finds room for one.
SEGMENT_MAX_BYTES = 256 * MIB

# The footer is kept in memory while a segment is open: about 170 bytes each, some 5 MiB at most.
SEGMENT_RECORDS_MAX_COUNT = 32_768

# Blocks are reserved in such steps: each worker and drive has a segment open, most of them nearly empty.
ALLOCATION_STEP_BYTES = 16 * MIB

# Every segment is written once and then unlinked. A version that writes over old segments will count up.
FIRST_GENERATION = 1

# What a scan reads at a time when it has lost its way.
_SEARCH_BYTES = 4 * MIB

_HEADER = Struct("<4sI8s16s")
_CHECKSUM = Struct("<Q")
_FOOTER = Struct("<4sI8sQI")
_ENTRY = Struct("<32sHBBQQIII")
_TRAILER = Struct("<4sI8sQQ")
TRAILER_BYTES = _TRAILER.size + _CHECKSUM.size

SUFFIX = ".segment"


class Entry(msgspec.Struct, frozen=True):
    """What the index needs to know of a record; a line of a footer."""

    kind: Kind
    key: FragmentKey
    sequence: int
    place: Place
    head_bytes: int
    payload_bytes: int
    tag: bytes


class Contents(msgspec.Struct, frozen=True):
    """A segment as it was read back."""

    entries: list[Entry]
    end: int
    """Behind its last record, on a 4 KiB boundary: where a footer goes."""
    closed: bool
    """It has a footer that checks out."""
    damaged: tuple[int, ...] = ()
    """Offsets at which the scan met rot: not a torn tail."""


def segment_name(segment: bytes) -> str:
    return segment.hex() + SUFFIX


def segment_path(directory: Path, segment: bytes) -> Path:
    return directory / segment_name(segment)


def segment_of(name: str) -> bytes | None:
    """The id in a file's name; None for a file that is no segment."""
    stem = name.removesuffix(SUFFIX)
    if stem == name or len(stem) != 2 * SEGMENT_ID_BYTES:
        return None
    try:
        return bytes.fromhex(stem)
    except ValueError:
        return None


def entry_of(head: Head) -> Entry:
    return Entry(head.kind, head.key, head.sequence, head.place, head.bytes, head.payload_bytes, head.tag)


def encode_header(segment: bytes, drive: DriveId, generation: int = FIRST_GENERATION) -> bytes:
    header = _HEADER.pack(HEADER_MAGIC, generation, segment, drive)
    return (header + _CHECKSUM.pack(xxh3_64_intdigest(header))).ljust(PAGE_BYTES, b"\0")


def check_header(data: bytes, segment: bytes, drive: DriveId) -> int:
    """The segment's generation.

    Raises Corrupt for a header that is damaged, AlreadyExists when it is sound and names another segment or drive, and
    InvalidRequest when a newer version wrote it.
    """
    header = data[: _HEADER.size]
    if len(data) < _HEADER.size + _CHECKSUM.size or header[:3] != HEADER_MAGIC[:3]:
        raise Corrupt(f"segment {segment.hex()}: no segment header")
    magic, generation, segment_there, drive_there = _HEADER.unpack(header)
    if _CHECKSUM.unpack_from(data, _HEADER.size)[0] != xxh3_64_intdigest(header):
        raise Corrupt(f"segment {segment.hex()}: the header does not match its checksum")
    if magic != HEADER_MAGIC or generation != FIRST_GENERATION:
        raise InvalidRequest(f"segment {segment.hex()} was written by a newer Holdfast: use that one")
    if (segment_there, drive_there) != (segment, drive):
        raise AlreadyExists(f"segment {segment.hex()}: the header names another segment or drive")
    return int(generation)


def is_ours(file: File, segment: bytes, drive: DriveId) -> bool:
    """Whether a file in the place of `segment` belongs there. Raises InvalidRequest for a newer version, OSError.

    A rotten header says nothing against it: the records are bound to the file's name.
    """
    try:
        check_header(read_bytes(file, 0, PAGE_BYTES), segment, drive)
    except AlreadyExists:
        return False
    except Corrupt:
        pass
    return True


def encode_entry(entry: Entry) -> bytes:
    block, index = entry.key
    fixed = _ENTRY.pack(
        block,
        index,
        entry.kind,
        len(entry.tag),
        entry.sequence,
        entry.place.offset,
        entry.place.span,
        entry.head_bytes,
        entry.payload_bytes,
    )
    return fixed + entry.tag


def encode_footer(segment: bytes, end: int, count: int, entries: bytes) -> bytes:
    """Footer and trailer, whole pages: they go at `end`, and the file ends behind them."""
    footer = _FOOTER.pack(FOOTER_MAGIC, FIRST_GENERATION, segment, end, count) + entries
    footer += _CHECKSUM.pack(xxh3_64_intdigest(footer))
    trailer = _TRAILER.pack(TRAILER_MAGIC, FIRST_GENERATION, segment, end, len(footer))
    trailer += _CHECKSUM.pack(xxh3_64_intdigest(trailer))
    padding = -(len(footer) + len(trailer)) % PAGE_BYTES
    return footer + bytes(padding) + trailer


def decode_trailer(data: bytes, segment: bytes, generation: int) -> tuple[int, int]:
    """Offset and length of the footer. Raises Corrupt, whatever the bytes."""
    if len(data) != TRAILER_BYTES or data[:4] != TRAILER_MAGIC:
        raise Corrupt(f"segment {segment.hex()}: no trailer")
    _, generation_there, segment_there, end, length = _TRAILER.unpack_from(data)
    if _CHECKSUM.unpack_from(data, _TRAILER.size)[0] != xxh3_64_intdigest(data[: _TRAILER.size]):
        raise Corrupt(f"segment {segment.hex()}: the trailer does not match its checksum")
    if (generation_there, segment_there) != (generation, segment):
        raise Corrupt(f"segment {segment.hex()}: the trailer belongs to another segment")
    return int(end), int(length)


def decode_footer(data: bytes, segment: bytes, generation: int) -> tuple[int, list[Entry]]:
    """The end of the records, and the records. Raises Corrupt, whatever the bytes."""
    body = len(data) - _CHECKSUM.size
    if body < _FOOTER.size or data[:4] != FOOTER_MAGIC:
        raise Corrupt(f"segment {segment.hex()}: no footer")
    if _CHECKSUM.unpack_from(data, body)[0] != xxh3_64_intdigest(data[:body]):
        raise Corrupt(f"segment {segment.hex()}: the footer does not match its checksum")
    _, generation_there, segment_there, end, count = _FOOTER.unpack_from(data)
    if (generation_there, segment_there) != (generation, segment):
        raise Corrupt(f"segment {segment.hex()}: the footer belongs to another segment")
    entries: list[Entry] = []
    at = _FOOTER.size
    try:
        for _ in range(count):
            block, index, kind, tag_size, sequence, offset, span, head, payload = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size + tag_size
            key = FragmentKey(BlockId(block), index)
            place = Place(segment, offset, span)
            entries.append(Entry(Kind(kind), key, sequence, place, head, payload, data[at - tag_size : at]))
    except (error, ValueError):
        raise Corrupt(f"segment {segment.hex()}: the footer's entries cannot be read") from None
    if at != body:
        raise Corrupt(f"segment {segment.hex()}: the footer's length contradicts its entries")
    return end, entries


def read_contents(file: File, segment: bytes, generation: int = FIRST_GENERATION) -> Contents:
    """A segment's records, by its footer where it has a good one, else by a scan. Raises OSError."""
    try:
        return _read_footer(file, segment, generation)
    except Corrupt:
        return scan(file, segment, generation)


def _read_footer(file: File, segment: bytes, generation: int) -> Contents:
    size = file.size()
    start, length = decode_trailer(read_bytes(file, max(0, size - TRAILER_BYTES), TRAILER_BYTES), segment, generation)
    if not PAGE_BYTES <= start <= start + length <= size:
        raise Corrupt(f"segment {segment.hex()}: the trailer points outside of the file")
    end, entries = decode_footer(read_bytes(file, start, length), segment, generation)
    return Contents(entries, end, True)


def scan(file: File, segment: bytes, generation: int = FIRST_GENERATION) -> Contents:
    """Walk the records of a segment without a footer. Raises OSError."""
    entries: list[Entry] = []
    last: list[Head] = []
    suspects: list[int] = []
    damaged: list[int] = []
    position = end = PAGE_BYTES
    for head in _heads(file, segment, generation):
        if last and head.commit < last[-1].commit:
            continue
        if head.place.offset != position:
            suspects.append(position)
        if last and head.commit != last[-1].commit:
            # A later commit proves that everything before it was on stable storage: what is bad there is rot.
            damaged += suspects
            entries += map(entry_of, last)
            suspects, last = [], []
        last.append(head)
        position = end = head.place.offset + head.place.span
    entries += (entry_of(head) for head in last if _payload_is_good(file, head))
    return Contents(entries, aligned(end, PAGE_BYTES), False, tuple(damaged))


def _heads(file: File, segment: bytes, generation: int) -> Iterator[Head]:
    """Heads that check out, in the order of the file, from behind the header to the end."""
    at: int | None = PAGE_BYTES
    size = file.size()
    while at is not None and at < size:
        try:
            head = read_head(memoryview(read_bytes(file, at, HEAD_MAX_BYTES)), segment, generation, at)
        except Corrupt:
            at = _search(file, at + RECORD_ALIGN_BYTES, size)
            continue
        yield head
        at += aligned(head.place.span)


def _search(file: File, start: int, size: int) -> int | None:
    """The next offset at which something like a record begins; None when there is none."""
    while start < size:
        data = read_bytes(file, start, _SEARCH_BYTES)
        found = data.find(MAGIC)
        while found >= 0:
            if (start + found) % RECORD_ALIGN_BYTES == 0:
                return start + found
            found = data.find(MAGIC, found + 1)
        if len(data) < _SEARCH_BYTES:
            return None
        # A magic may lie across the seam.
        start += len(data) - len(MAGIC)
    return None


def _payload_is_good(file: File, head: Head) -> bool:
    data = read_bytes(file, head.place.offset + head.bytes, head.payload_bytes)
    try:
        check_payload(data, head.checksums, 0, "")
    except Corrupt:
        return False
    return len(data) == head.payload_bytes


def read_bytes(file: File, offset: int, length: int) -> bytes:
    """Up to `length` bytes at `offset`, fewer only at the end of the file."""
    buffer = bytearray(length)
    count = file.read_into(memoryview(buffer), offset)
    return bytes(memoryview(buffer)[:count])
