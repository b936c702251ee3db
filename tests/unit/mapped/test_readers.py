"""LMDB's table of readers: allocated without holes, and known by its head."""

from pathlib import Path

import lmdb
import pytest

from holdfast.mapped.readers import TABLE_NAME, ReaderTable, allocate_table

READERS_COUNT = 100


def test_lmdb_takes_a_table_that_was_allocated(tmp_path: Path) -> None:
    allocate_table(tmp_path, READERS_COUNT)
    allocated = (tmp_path / TABLE_NAME).stat()
    assert allocated.st_blocks * 512 >= allocated.st_size
    with lmdb.open(str(tmp_path), max_readers=READERS_COUNT) as environment:
        assert environment.info()["max_readers"] >= READERS_COUNT
        opened = (tmp_path / TABLE_NAME).stat()
        assert (opened.st_ino, opened.st_size) == (allocated.st_ino, allocated.st_size)


def test_a_file_that_was_cut_off_is_no_table_and_is_not_kept_open(tmp_path: Path) -> None:
    path = tmp_path / TABLE_NAME
    path.touch()
    with pytest.raises(OSError, match="no table"):
        ReaderTable(tmp_path)
    assert path not in {descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("damage", [b"\0" * 8, b"x", b""])
def test_a_table_is_known_by_its_head(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / TABLE_NAME
    path.write_bytes(b"\xde\xc0\xef\xbe head" + bytes(100))
    table = ReaderTable(tmp_path)
    assert table.is_sound()
    with path.open("r+b") as file:
        file.write(damage)
        if not damage:
            file.truncate(3)
    assert not table.is_sound()
    table.close()
