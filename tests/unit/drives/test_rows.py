"""The running index and one rebuilt from the segments always agree, whatever is put, deleted, moved and unlinked."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.drives.interface import FragmentKey
from holdfast.drives.records import Kind, Place
from holdfast.drives.rows import DATABASES, Databases, Row, Update, decode_key, decode_row, encode_row
from holdfast.drives.segments import Entry
from holdfast.testing.drive_suite import key_of

KEYS = 3
SEGMENTS = 4
SPAN = 100


class Rows:
    """An index of its own, without files to index."""

    def __init__(self, path: Path) -> None:
        self.environment = lmdb.open(str(path), max_dbs=4, sync=False, lock=False, map_size=1 << 20)
        self.databases = Databases(*(self.environment.open_db(name) for name in DATABASES))

    def update(self, change: Callable[[Update], object]) -> None:
        with self.environment.begin(write=True) as transaction:
            update = Update(transaction, self.databases)
            change(update)
            update.finish()

    def rows(self, kind: Kind) -> dict[FragmentKey, Row]:
        database = self.databases.fragments if kind is Kind.FRAGMENT else self.databases.deleted
        with self.environment.begin() as transaction:
            return {decode_key(key): decode_row(row) for key, row in transaction.cursor(db=database)}

    def live(self) -> dict[FragmentKey, int]:
        return {key: row.sequence for key, row in self.rows(Kind.FRAGMENT).items()}


@contextmanager
def rows() -> Iterator[Rows]:
    with tempfile.TemporaryDirectory() as path:
        found = Rows(Path(path))
        yield found
        found.environment.close()


class Model:
    """Segments as lists of entries, and what each key should be."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.segments: dict[bytes, list[Entry]] = {}
        self.truth: dict[FragmentKey, int] = {}
        self.sequence = 0
        self.made = 0

    def entry(self, slot: int, kind: Kind, key: FragmentKey, sequence: int) -> Entry:
        self.made += 1
        segment = bytes((slot,)) * 8
        return Entry(kind, key, sequence, Place(segment, 4096 + SPAN * self.made, SPAN), 50, 50, b"t")

    def write(self, slot: int, number: int, kind: Kind) -> None:
        self.sequence += 1
        entry = self.entry(slot, kind, key_of(number), self.sequence)
        self.segments.setdefault(entry.place.segment, []).append(entry)
        self.rows.update(lambda update: update.apply(entry))
        if kind is Kind.FRAGMENT:
            self.truth[entry.key] = self.sequence
        else:
            self.truth.pop(entry.key, None)

    def living(self, segment: bytes) -> list[Entry]:
        return [e for e in self.segments[segment] if (row := self.rows.rows(e.kind).get(e.key)) and row.is_at(e.place)]

    def move_out(self, slot: int, target: int, between: Sequence[tuple[int, int, Kind]], *, dies: bool = False) -> None:
        """Compact a segment; `between` happens while the copies are under way.

        Then it is unlinked, unless the process `dies` first and leaves it with nothing that lives.
        """
        segment = bytes((slot,)) * 8
        if slot == target or segment not in self.segments:
            return
        copies = [(old, self.entry(target, old.kind, old.key, old.sequence)) for old in self.living(segment)]
        for there, number, kind in between:
            if there != slot:
                self.write(there, number, kind)
        for old, new in copies:
            self.segments.setdefault(new.place.segment, []).append(new)
            self.rows.update(lambda update, old=old, new=new: update.move(new, old.place))  # type: ignore[misc]
        assert not self.living(segment)
        if dies:
            return
        entries = self.segments.pop(segment)
        self.rows.update(lambda update: update.forget_segment(segment, entries))

    def rebuilt(self, order: Sequence[bytes]) -> dict[FragmentKey, int]:
        with rows() as fresh:
            for segment in order:
                for entry in self.segments[segment]:
                    fresh.update(lambda update, entry=entry: update.apply(entry, keep_tombstones=True))  # type: ignore[misc]
            fresh.update(Update.drop_needless_tombstones)
            for kind in Kind.FRAGMENT, Kind.TOMBSTONE:
                there = {key: row.sequence for key, row in fresh.rows(kind).items()}
                assert there == {key: row.sequence for key, row in self.rows.rows(kind).items()}, kind
            return fresh.live()


slots = st.integers(0, SEGMENTS - 1)
writes = st.tuples(slots, st.integers(0, KEYS - 1), st.sampled_from([Kind.FRAGMENT, Kind.TOMBSTONE]))
moves = st.tuples(slots, slots, st.tuples(st.lists(writes, max_size=2), st.booleans()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(writes, moves), max_size=25), st.randoms(use_true_random=False))
def test_a_rebuild_gives_what_ran_along(steps: list[tuple[int, int, object]], random: object) -> None:
    with rows() as running:
        model = Model(running)
        for first, second, third in steps:
            if isinstance(third, Kind):
                model.write(first, second, third)
            else:
                assert isinstance(third, tuple)
                model.move_out(first, second, third[0], dies=third[1])
            assert running.live() == model.truth
            order = list(model.segments)
            random.shuffle(order)  # type: ignore[attr-defined]
            assert model.rebuilt(order) == model.truth


def test_a_tombstone_stays_while_an_older_record_does() -> None:
    with rows() as running:
        model = Model(running)
        model.write(0, 0, Kind.FRAGMENT)
        model.write(1, 0, Kind.TOMBSTONE)
        assert running.rows(Kind.TOMBSTONE)[key_of(0)].shadows == {b"\0" * 8}
        model.move_out(1, 2, [])
        assert model.rebuilt(list(model.segments)) == {}
        model.move_out(0, 2, [])
        assert running.rows(Kind.TOMBSTONE) == {}


def test_a_copy_left_behind_by_a_dead_compaction_stays_in_mind() -> None:
    with rows() as running:
        model = Model(running)
        model.write(0, 0, Kind.FRAGMENT)
        model.move_out(0, 1, [], dies=True)
        model.write(2, 0, Kind.TOMBSTONE)
        model.move_out(1, 3, [])
        model.move_out(2, 3, [])
        assert running.rows(Kind.TOMBSTONE)[key_of(0)].shadows == {b"\0" * 8}
        assert model.rebuilt(list(model.segments)) == {}
        model.move_out(0, 3, [])
        assert running.rows(Kind.TOMBSTONE) == {}


def test_applying_twice_changes_nothing() -> None:
    with rows() as running:
        model = Model(running)
        model.write(0, 0, Kind.FRAGMENT)
        model.write(1, 0, Kind.FRAGMENT)
        model.write(1, 1, Kind.FRAGMENT)
        model.write(2, 1, Kind.TOMBSTONE)
        before = running.rows(Kind.FRAGMENT), running.rows(Kind.TOMBSTONE)
        for entries in model.segments.values():
            for entry in entries:
                running.update(lambda update, entry=entry: update.apply(entry))  # type: ignore[misc]
        assert (running.rows(Kind.FRAGMENT), running.rows(Kind.TOMBSTONE)) == before


def test_rows_of_every_shape() -> None:
    for shadows in (frozenset[bytes](), frozenset({b"a" * 8}), frozenset({b"a" * 8, b"b" * 8})):
        for tag in (b"", b"t", bytes(255)):
            row = Row(1 << 60, b"segment!", 1 << 40, 5000, 300, 4700, tag, shadows)
            assert decode_row(encode_row(row)) == row
