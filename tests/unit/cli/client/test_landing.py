"""Keys on a file system: inside the target, or not at all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.cli.client.landing import (
    NAME_MAX_BYTES,
    InTheWay,
    Landing,
    is_part_file,
    part_path,
    relative_parts,
    stale_parts,
)
from holdfast.core.errors import InvalidName


@pytest.mark.parametrize(
    "key",
    ["", "..", ".", "../x", "a/../../x", "a/..", "/etc/passwd", "a//b", "a/", "a/./b", "a\0b", "x" * 256, "ü" * 128],
)
def test_what_could_lead_elsewhere_is_refused(key: str) -> None:
    with pytest.raises(InvalidName, match="the key"):
        relative_parts(key)


@given(st.text(max_size=40))
def test_every_key_stays_inside_or_is_refused(key: str) -> None:
    root = Path("/target")
    try:
        parts = relative_parts(key)
    except (InvalidName, UnicodeEncodeError):
        return
    path = root.joinpath(*parts)
    assert path.parent.is_relative_to(root)
    assert str(path) == f"/target/{key}"


@pytest.mark.parametrize("key", ["a b", "ünï/日本", "-rf", "a\nb", "...", "..a", "~", "$HOME", "*"])
def test_odd_names_are_kept(key: str, tmp_path: Path) -> None:
    path = Landing(tmp_path / "in").place(key)
    path.write_bytes(b"x")
    assert path == tmp_path / "in" / key


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(outside)
    with pytest.raises(InTheWay, match="symbolic link"):
        Landing(tmp_path / "in").place("link/deeper/file")
    assert list(outside.iterdir()) == []


def test_a_file_where_a_directory_must_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(InTheWay, match="move it away"):
        Landing(tmp_path).place("a/b")


def test_part_files_are_known_and_short(tmp_path: Path) -> None:
    long = tmp_path / ("x" * NAME_MAX_BYTES)
    part = part_path(long, "etag")
    assert len(part.name) <= NAME_MAX_BYTES
    assert part.parent == tmp_path
    assert is_part_file(part.name)
    assert not is_part_file(long.name)
    assert part_path(tmp_path / "a", "one") != part_path(tmp_path / "a", "two")
    assert part_path(long, "etag") != part_path(tmp_path / ("x" * 254), "etag")


def test_stale_parts_are_those_of_the_same_file(tmp_path: Path) -> None:
    mine, other = tmp_path / "a", tmp_path / "a.b"
    for path in (part_path(mine, "old"), part_path(mine, "older"), part_path(other, "old"), tmp_path / ".a.txt"):
        path.write_bytes(b"")
    assert sorted(stale_parts(mine)) == sorted([part_path(mine, "old"), part_path(mine, "older")])
