"""The rules of a power cut, each on the shortest trace that shows it."""

from pathlib import Path

import pytest

from holdfast.testing.power_cut import (
    DIRECTORY,
    DURABLE,
    PAGE_BYTES,
    SECTOR_BYTES,
    Cut,
    Kind,
    Marker,
    Names,
    Record,
    Unfollowed,
    Unsynced,
    World,
    cut_positions,
    marks,
    read_trace,
)


class Run:
    """Builds a trace over one root."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        self.root.mkdir()
        self.tmp_path = tmp_path
        self.world = World([self.root])
        self.records: list[Record] = []

    def add(
        self,
        kind: Kind,
        name: str = "",
        *,
        inode: int = 0,
        offset: int = 0,
        data: bytes = b"",
        second: str = "",
        flags: int = 0,
    ) -> None:
        path = str(self.root / name) if name else str(self.root)
        other = str(self.root / second) if second else ""
        self.records.append(Record(kind, flags, (1, 1), path, other, inode, offset, memoryview(data)))

    def sync(self, inode: int) -> None:
        self.add(Kind.SYNC_BEGIN, "f", inode=inode)
        self.add(Kind.SYNC_END, "f", inode=inode)

    def sync_directory(self, name: str = "") -> None:
        self.add(Kind.SYNC_BEGIN, name, flags=DIRECTORY)
        self.add(Kind.SYNC_END, name, flags=DIRECTORY)

    def file(self, data: bytes = b"", inode: int = 7) -> None:
        """A file "f" whose name and whose `data` are durable."""
        self.add(Kind.CREATE, "f", inode=inode)
        if data:
            self.add(Kind.WRITE, "f", inode=inode, data=data)
        self.sync(inode)
        self.sync_directory()

    def cut(self, unsynced: Unsynced, names: Names = Names.STRICT, seed: int = 0) -> dict[str, bytes]:
        self.world.advance(self.records, len(self.records))
        target = self.tmp_path / f"cut-{unsynced}-{names}-{seed}"
        self.world.materialise(Cut(len(self.records), names, unsynced, seed), [target])
        return {str(p.relative_to(target)): p.read_bytes() for p in sorted(target.rglob("*")) if p.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_synced_bytes_stay_and_others_go(run: Run) -> None:
    run.file(b"old")
    run.add(Kind.WRITE, "f", inode=7, offset=3, data=b"new")
    assert run.cut(Unsynced.LOST) == {"f": b"old"}
    assert run.cut(Unsynced.KEPT) == {"f": b"oldnew"}


def test_a_write_beside_a_sync_is_not_covered_by_it(run: Run) -> None:
    run.file(b"old")
    run.add(Kind.SYNC_BEGIN, "f", inode=7)
    run.add(Kind.WRITE, "f", inode=7, data=b"new")
    run.add(Kind.SYNC_END, "f", inode=7)
    assert run.cut(Unsynced.LOST) == {"f": b"old"}


def test_a_sync_that_has_not_ended_promises_nothing(run: Run) -> None:
    run.file(b"old")
    run.add(Kind.WRITE, "f", inode=7, data=b"new")
    run.add(Kind.SYNC_BEGIN, "f", inode=7)
    assert run.cut(Unsynced.LOST) == {"f": b"old"}


def test_o_dsync_covers_its_own_pages_only(run: Run) -> None:
    run.file(bytes(3 * PAGE_BYTES))
    run.add(Kind.WRITE, "f", inode=7, offset=10, data=b"same page")
    run.add(Kind.WRITE, "f", inode=7, offset=2 * PAGE_BYTES, data=b"another")
    run.add(Kind.WRITE, "f", inode=7, offset=0, data=b"durable", flags=DURABLE)
    expected = bytearray(3 * PAGE_BYTES)
    expected[:7] = b"durable"
    expected[10:19] = b"same page"
    assert run.cut(Unsynced.LOST) == {"f": bytes(expected)}


def test_pages_are_reordered_and_sectors_torn(run: Run) -> None:
    old, new = b"o" * 8 * PAGE_BYTES, b"n" * 8 * PAGE_BYTES
    run.file(old)
    run.add(Kind.WRITE, "f", inode=7, data=new)
    later_without_earlier = torn = False
    for seed in range(200):
        (left,) = run.cut(Unsynced.TORN, seed=seed).values()
        sectors = [left[start : start + SECTOR_BYTES] for start in range(0, len(left), SECTOR_BYTES)]
        assert all(sector in (old[:SECTOR_BYTES], new[:SECTOR_BYTES]) for sector in sectors)
        pages = [set(left[start : start + PAGE_BYTES]) for start in range(0, len(left), PAGE_BYTES)]
        torn |= any(len(page) == 2 for page in pages)
        later_without_earlier |= pages[0] == {ord("o")} and pages[-1] == {ord("n")}
    assert torn
    assert later_without_earlier


def test_lengths_go_with_the_writes(run: Run) -> None:
    run.file(b"0123456789")
    run.add(Kind.TRUNCATE, "f", inode=7, offset=4)
    assert run.cut(Unsynced.LOST) == {"f": b"0123456789"}
    run.sync(7)
    run.add(Kind.ALLOCATE, "f", inode=7, offset=8)
    assert run.cut(Unsynced.LOST, seed=1) == {"f": b"0123"}
    assert run.cut(Unsynced.KEPT) == {"f": b"0123\0\0\0\0"}


def test_bytes_behind_a_cut_off_end_do_not_come_back(run: Run) -> None:
    run.file(b"x" * (PAGE_BYTES + 10))
    run.add(Kind.TRUNCATE, "f", inode=7, offset=5)
    run.add(Kind.ALLOCATE, "f", inode=7, offset=PAGE_BYTES + 10)
    run.sync(7)
    assert run.cut(Unsynced.LOST) == {"f": b"x" * 5 + bytes(PAGE_BYTES + 5)}


def test_a_name_needs_its_directory_synced(run: Run) -> None:
    run.add(Kind.CREATE, "f", inode=7)
    run.add(Kind.WRITE, "f", inode=7, data=b"data")
    assert run.cut(Unsynced.LOST, Names.ORDERED) == {}
    assert run.cut(Unsynced.KEPT, Names.ORDERED) == {"f": b"data"}
    run.sync(7)
    assert run.cut(Unsynced.LOST, Names.STRICT) == {}
    assert run.cut(Unsynced.LOST, Names.ORDERED, seed=1) == {"f": b"data"}
    run.sync_directory()
    assert run.cut(Unsynced.LOST, Names.STRICT, seed=1) == {"f": b"data"}


def test_a_rename_is_one_change(run: Run) -> None:
    run.file(b"old")
    run.add(Kind.CREATE, "g", inode=8)
    run.add(Kind.WRITE, "g", inode=8, data=b"new")
    run.add(Kind.SYNC_BEGIN, "g", inode=8)
    run.add(Kind.SYNC_END, "g", inode=8)
    run.add(Kind.RENAME, "g", second="f")
    outcomes = {tuple(run.cut(Unsynced.TORN, Names.ORDERED, seed).items()) for seed in range(40)}
    assert outcomes == {(("f", b"old"), ("g", b"new")), (("f", b"new"),)}


def test_a_renamed_file_without_a_sync_may_be_empty(run: Run) -> None:
    run.file(b"old")
    run.add(Kind.CREATE, "g", inode=8)
    run.add(Kind.WRITE, "g", inode=8, data=b"new")
    run.add(Kind.RENAME, "g", second="f")
    run.sync_directory()
    assert run.cut(Unsynced.LOST) == {"f": b""}


def test_a_removed_file_comes_back_unless_its_directory_was_synced(run: Run) -> None:
    run.file(b"data")
    run.add(Kind.UNLINK, "f")
    assert run.cut(Unsynced.LOST) == {"f": b"data"}
    run.sync_directory()
    assert run.cut(Unsynced.LOST, seed=1) == {}


def test_inode_numbers_are_used_again(run: Run) -> None:
    run.file(b"first")
    run.add(Kind.UNLINK, "f")
    run.file(b"second")
    assert run.cut(Unsynced.LOST) == {"f": b"second"}


def test_what_lies_in_a_lost_directory_is_lost(run: Run) -> None:
    run.add(Kind.MKDIR, "d")
    run.add(Kind.CREATE, "d/g", inode=9)
    run.sync_directory("d")
    assert run.cut(Unsynced.LOST) == {}
    run.sync_directory()
    assert run.cut(Unsynced.LOST, seed=1) == {"d/g": b""}


def test_directories_are_taken_as_they_are_at_the_start(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "d").mkdir(parents=True)
    with (root / "d" / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    world = World([root])
    inode = (root / "d" / "sparse").stat().st_ino
    write = Record(Kind.WRITE, 0, (1, 1), str(root / "d" / "sparse"), "", inode, 5, memoryview(b"start"))
    world.advance([write], 1)
    world.materialise(Cut(1, Names.STRICT, Unsynced.KEPT), [tmp_path / "cut"])
    left = (tmp_path / "cut" / "d" / "sparse").read_bytes()
    assert left == bytes(5) + b"start" + bytes((1 << 20) - 10) + b"end"


def test_what_cannot_be_followed_is_refused(run: Run) -> None:
    run.add(Kind.UNFOLLOWED, "lock.mdb", second="mmap")
    run.world.advance(run.records, 1)
    run.add(Kind.UNFOLLOWED, "f", second="mmap")
    with pytest.raises(Unfollowed):
        run.world.advance(run.records, 2)


def test_marks_and_boundaries(run: Run, tmp_path: Path) -> None:
    marker = Marker(tmp_path / "trace")
    marker.mark(b"one")
    marker.mark(b"two")
    marker.close()
    trace = tmp_path / "trace"
    trace.write_bytes(trace.read_bytes() + b"hfrc-torn"[:4])
    records = read_trace(trace)
    assert marks(records, 1) == [b"one"]
    assert marks(records, 2) == [b"one", b"two"]
    run.file(b"data")
    assert cut_positions(run.records) == [3, 5, 6]
