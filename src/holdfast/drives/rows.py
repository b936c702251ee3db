"""What the index says: its rows, and how a record changes them. No I/O but LMDB's, inside a transaction it is handed.

Rows. `fragments` maps a key to the live record; `deleted` maps a key to its tombstone while an older record of that
key may still lie in some segment; `books` keeps those of each segment, and the clock: one page less to a commit.

Rules. The record with the highest sequence is the truth of a key, in whatever order records are applied: rebuilding
from segments and running along give the same rows. `shadows` are the segments that hold older records of the key: a
tombstone may be dropped only when there are none left, else a rebuilt index would raise the dead.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple

from holdfast.core.ids import BLOCK_ID_BYTES, BlockId
from holdfast.drives.interface import FragmentInfo, FragmentKey
from holdfast.drives.records import SEGMENT_ID_BYTES, Kind, Place
from holdfast.drives.segments import Entry

_KEY = Struct(">32sH")
_ROW = Struct("<Q8sQIIIB")
_SEGMENT = Struct("<QQQB")
_CLOCK = Struct("<Q")
# Shorter than any segment's id.
_CLOCK_KEY = b"clock"

DATABASES = (b"fragments", b"deleted", b"books")


class Row(NamedTuple):
    """Where the newest record of a key lies."""

    sequence: int
    segment: bytes
    offset: int
    span: int
    head_bytes: int
    payload_bytes: int
    tag: bytes
    shadows: frozenset[bytes]
    """Segments that hold older records of the key."""

    def is_at(self, place: Place) -> bool:
        return self.offset == place.offset and self.segment == place.segment


@dataclass(slots=True)
class SegmentBooks:
    """What a segment holds, in bytes of records."""

    fragments: int = 0
    """Live fragments."""
    tombstones: int = 0
    """Tombstones that are still needed."""
    end: int = 0
    """Behind the last record; 0 when nothing was written yet."""
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Databases:
    """LMDB's handles, in the order of DATABASES."""

    fragments: Any
    deleted: Any
    books: Any


def encode_key(key: FragmentKey) -> bytes:
    return _KEY.pack(key.block, key.index)


def decode_key(data: bytes) -> FragmentKey:
    return FragmentKey(BlockId(data[:BLOCK_ID_BYTES]), int.from_bytes(data[BLOCK_ID_BYTES:], "big"))


def encode_row(row: Row) -> bytes:
    fixed = _ROW.pack(row.sequence, row.segment, row.offset, row.span, row.head_bytes, row.payload_bytes, len(row.tag))
    return b"".join((fixed, row.tag, *sorted(row.shadows)))


def decode_row(data: bytes) -> Row:
    sequence, segment, offset, span, head, payload, tag_size = _ROW.unpack_from(data)
    at = _ROW.size + tag_size
    shadows = frozenset(data[i : i + SEGMENT_ID_BYTES] for i in range(at, len(data), SEGMENT_ID_BYTES))
    return Row(sequence, segment, offset, span, head, payload, data[_ROW.size : at], shadows)


def decode_info(key: bytes, row: bytes) -> FragmentInfo:
    """A line of a listing."""
    _, _, _, _, _, payload_bytes, tag_size = _ROW.unpack_from(row)
    return FragmentInfo(decode_key(key), payload_bytes, row[_ROW.size : _ROW.size + tag_size])


def decode_books(data: bytes) -> SegmentBooks:
    fragments, tombstones, end, closed = _SEGMENT.unpack(data)
    return SegmentBooks(fragments, tombstones, end, bool(closed))


def read_books(transaction: Any, databases: Databases) -> dict[bytes, SegmentBooks]:
    """The books of every segment."""
    with transaction.cursor(db=databases.books) as cursor:
        return {segment: decode_books(data) for segment, data in cursor if segment != _CLOCK_KEY}


def row_of(entry: Entry, shadows: frozenset[bytes]) -> Row:
    place = entry.place
    return Row(
        entry.sequence,
        place.segment,
        place.offset,
        place.span,
        entry.head_bytes,
        entry.payload_bytes,
        entry.tag,
        shadows,
    )


def read_clock(transaction: Any, databases: Databases) -> int:
    data = transaction.get(_CLOCK_KEY, db=databases.books)
    return int(_CLOCK.unpack(data)[0]) if data is not None else 0


class Update:
    """Changes to the rows within one write transaction; `finish` writes the books and must come last."""

    def __init__(self, transaction: Any, databases: Databases) -> None:
        self._transaction = transaction
        self._databases = databases
        self._books: dict[bytes, SegmentBooks] = {}

    def apply(self, entry: Entry, *, keep_tombstones: bool = False) -> None:
        """Take up a record. Applying one twice changes nothing.

        A tombstone of a key that no record is known of leaves no row, unless `keep_tombstones`: a rebuild, which
        reads segments in any order, may meet the older record later.
        """
        self._book(entry.place.segment).end = max(
            self._book(entry.place.segment).end, entry.place.offset + entry.place.span
        )
        if entry.kind is Kind.FRAGMENT:
            self._apply_fragment(entry)
        elif entry.kind is Kind.TOMBSTONE:
            self._apply_tombstone(entry, keep_tombstones)

    def move(self, entry: Entry, source: Place) -> None:
        """Take up a record that compaction copied from `source`; it becomes the live one only if that still was."""
        book = self._book(entry.place.segment)
        book.end = max(book.end, entry.place.offset + entry.place.span)
        key = encode_key(entry.key)
        for database in (self._databases.fragments, self._databases.deleted):
            row = self._get(database, key)
            if row is None:
                continue
            # A tombstone casts no shadow: only an older fragment can rise from the dead.
            stale = source.segment if row.is_at(source) else entry.place.segment
            shadows = row.shadows | {stale} if entry.kind is Kind.FRAGMENT else row.shadows
            if row.is_at(source):
                self._count(entry.kind, row, -1)
                row = row_of(entry, shadows)
                self._count(entry.kind, row, 1)
            else:
                row = row._replace(shadows=shadows)
            self._put(database, key, row)

    def lives(self, entry: Entry) -> bool:
        """Whether a record is the newest of its key, at its place."""
        is_fragment = entry.kind is Kind.FRAGMENT
        row = self._get(self._databases.fragments if is_fragment else self._databases.deleted, encode_key(entry.key))
        return row is not None and row.is_at(entry.place)

    def forget_segment(self, segment: bytes, entries: Iterable[Entry]) -> None:
        """The segment's file is gone for good: it casts no shadows any more."""
        for entry in entries:
            key = encode_key(entry.key)
            for database in (self._databases.fragments, self._databases.deleted):
                row = self._get(database, key)
                if row is None or segment not in row.shadows:
                    continue
                row = row._replace(shadows=row.shadows - {segment})
                if database is self._databases.deleted and not row.shadows:
                    self._count(Kind.TOMBSTONE, row, -1)
                    self._transaction.delete(key, db=database)
                else:
                    self._put(database, key, row)
        self._books.pop(segment, None)
        self._transaction.delete(segment, db=self._databases.books)

    def drop_needless_tombstones(self) -> None:
        """End a rebuild: without an older record in any segment a tombstone has nothing left to say."""
        with self._transaction.cursor(db=self._databases.deleted) as cursor:
            more = cursor.first()
            while more:
                row = decode_row(cursor.value())
                if row.shadows:
                    more = cursor.next()
                else:
                    self._count(Kind.TOMBSTONE, row, -1)
                    more = cursor.delete() and bool(cursor.key())

    def set_end(self, segment: bytes, end: int, *, closed: bool) -> None:
        """Note where a segment's records end, and whether it has a footer."""
        book = self._book(segment)
        book.end, book.closed = end, closed

    def set_clock(self, sequence: int) -> None:
        self._transaction.put(_CLOCK_KEY, _CLOCK.pack(sequence), db=self._databases.books)

    def finish(self) -> None:
        for segment, book in self._books.items():
            row = _SEGMENT.pack(max(0, book.fragments), max(0, book.tombstones), book.end, book.closed)
            self._transaction.put(segment, row, db=self._databases.books)

    def _apply_fragment(self, entry: Entry) -> None:
        key = encode_key(entry.key)
        segment = entry.place.segment
        row = row_of(entry, frozenset())
        tombstone = self._get(self._databases.deleted, key)
        # Nearly every fragment is the first of its key: no row of another is looked for.
        if tombstone is None and self._add(self._databases.fragments, key, row):
            self._count(Kind.FRAGMENT, row, 1)
            return
        shadows: frozenset[bytes] = frozenset()
        old = self._get(self._databases.fragments, key)
        if old is not None:
            if old.sequence >= entry.sequence:
                if not old.is_at(entry.place):
                    self._put(self._databases.fragments, key, old._replace(shadows=old.shadows | {segment}))
                return
            shadows = old.shadows | {old.segment}
            self._count(Kind.FRAGMENT, old, -1)
        elif tombstone is not None:
            if tombstone.sequence > entry.sequence:
                row = tombstone._replace(shadows=tombstone.shadows | {segment})
                self._put(self._databases.deleted, key, row)
                return
            shadows = tombstone.shadows
            self._count(Kind.TOMBSTONE, tombstone, -1)
            self._transaction.delete(key, db=self._databases.deleted)
        row = row_of(entry, shadows)
        self._count(Kind.FRAGMENT, row, 1)
        self._put(self._databases.fragments, key, row)

    def _apply_tombstone(self, entry: Entry, keep: bool) -> None:
        key = encode_key(entry.key)
        shadows: frozenset[bytes] = frozenset()
        old = self._get(self._databases.fragments, key)
        tombstone = self._get(self._databases.deleted, key)
        if old is not None:
            if old.sequence > entry.sequence:
                return
            shadows = old.shadows | {old.segment}
            self._count(Kind.FRAGMENT, old, -1)
            self._transaction.delete(key, db=self._databases.fragments)
        elif tombstone is not None:
            if tombstone.sequence >= entry.sequence:
                return
            shadows = tombstone.shadows
            self._count(Kind.TOMBSTONE, tombstone, -1)
        elif not keep:
            return
        row = row_of(entry, shadows)
        self._count(Kind.TOMBSTONE, row, 1)
        self._put(self._databases.deleted, key, row)

    def _count(self, kind: Kind, row: Row, sign: int) -> None:
        book = self._book(row.segment)
        if kind is Kind.FRAGMENT:
            book.fragments += sign * row.span
        else:
            book.tombstones += sign * row.span

    def _book(self, segment: bytes) -> SegmentBooks:
        book = self._books.get(segment)
        if book is None:
            data = self._transaction.get(segment, db=self._databases.books)
            book = self._books[segment] = decode_books(data) if data is not None else SegmentBooks()
        return book

    def _get(self, database: Any, key: bytes) -> Row | None:
        data = self._transaction.get(key, db=database)
        return decode_row(data) if data is not None else None

    def _put(self, database: Any, key: bytes, row: Row) -> None:
        self._transaction.put(key, encode_row(row), db=database)

    def _add(self, database: Any, key: bytes, row: Row) -> bool:
        """Whether there was none; one that is there stays."""
        return bool(self._transaction.put(key, encode_row(row), db=database, overwrite=False))
