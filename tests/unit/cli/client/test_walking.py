"""The files of a directory, in the order of keys, and which of them are meant."""

import os
from pathlib import Path

import pytest

from holdfast.cli.client.landing import InTheWay, part_path
from holdfast.cli.client.matching import Filter
from holdfast.cli.client.walking import walk
from holdfast.core.errors import HoldfastError, NotFound


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def walked(root: Path, *, follow: bool = False) -> tuple[list[str], list[str], list[HoldfastError]]:
    left_out: list[str] = []
    failed: list[HoldfastError] = []
    names = [file.relative for file in walk(root, follow=follow, left_out=left_out.append, failed=failed.append)]
    return names, left_out, failed


def test_the_order_is_that_of_keys(tmp_path: Path) -> None:
    make(tmp_path, "a/b", "a-b", "a.b", "a0", "b/c/d", "b.c", "é", "z", "日本/x")
    names, left_out, failed = walked(tmp_path)
    assert names == sorted(names, key=str.encode)
    assert len(names) == 9
    assert (left_out, failed) == ([], [])


def test_links_are_left_out_and_told(tmp_path: Path) -> None:
    make(tmp_path, "in/a", "out/b")
    (tmp_path / "in" / "dir").symlink_to(tmp_path / "out")
    (tmp_path / "in" / "file").symlink_to(tmp_path / "out" / "b")
    names, left_out, _ = walked(tmp_path / "in")
    assert names == ["a"]
    assert len(left_out) == 2
    assert walked(tmp_path / "in", follow=True)[0] == ["a", "dir/b", "file"]


def test_a_link_to_above_ends(tmp_path: Path) -> None:
    make(tmp_path, "in/a")
    (tmp_path / "in" / "loop").symlink_to(tmp_path)
    names, left_out, _ = walked(tmp_path / "in", follow=True)
    assert names == ["a"]
    assert ["loop" in text for text in left_out] == [True]


def test_pipes_and_part_files_are_left_out(tmp_path: Path) -> None:
    make(tmp_path, "a", ".hidden")
    os.mkfifo(tmp_path / "pipe")
    part_path(tmp_path / "a", "etag").write_bytes(b"half")
    names, left_out, _ = walked(tmp_path)
    assert names == [".hidden", "a"]
    assert len(left_out) == 1


def test_names_that_are_no_text_fail_alone(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    names, _, failed = walked(tmp_path)
    assert names == ["a"]
    assert ["not UTF-8" in str(error) for error in failed] == [True]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_fails_alone(tmp_path: Path) -> None:
    make(tmp_path, "a/x", "b/y")
    (tmp_path / "a").chmod(0)
    names, _, failed = walked(tmp_path)
    (tmp_path / "a").chmod(0o700)
    assert names == ["b/y"]
    assert ["permission denied" in str(error) for error in failed] == [True]


def test_no_directory(tmp_path: Path) -> None:
    make(tmp_path, "file")
    with pytest.raises(NotFound):
        walked(tmp_path / "absent")
    with pytest.raises(InTheWay):
        walked(tmp_path / "file")


def test_include_narrows_and_exclude_wins() -> None:
    everything = ["a.jpg", "a/b.jpg", "a/b.txt", "a/tmp/c.jpg"]
    chosen = Filter.of(("*.jpg",), ("a/tmp/*",))
    assert [name for name in everything if chosen.takes(name)] == ["a.jpg", "a/b.jpg"]
    assert all(Filter().takes(name) for name in everything)
    assert not Filter.of((), ("*",)).takes("a.jpg")
