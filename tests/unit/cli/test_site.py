"""Directories and what lies in them: drives, missing drives, drives that nobody named, and what is refused."""

from pathlib import Path

import pytest

from holdfast.cli.site import (
    PLACES_NAME,
    begin,
    finish,
    read_places,
    survey,
    undo_unfinished,
    write_places,
)
from holdfast.cli.system import SystemRandomness
from holdfast.core.errors import AlreadyExists, Corrupt, InvalidRequest
from holdfast.drives.identity import IDENTITY_NAME
from holdfast.drives.os_disk import OsDisk

DISK = OsDisk()


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return make(tmp_path, "one", "two", "three")


def make(root: Path, *names: str) -> list[Path]:
    directories = [root / name for name in names]
    site = begin(DISK, SystemRandomness(), directories)
    write_places(DISK, directories, site.drives)
    finish(DISK, directories)
    return directories


def test_an_empty_directory_among_drives_is_a_missing_drive(three: list[Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    site = survey(DISK, [*three, tmp_path / "empty", tmp_path / "nowhere"])
    assert site is not None
    assert sorted(site.drives.values()) == sorted(three)
    assert site.missing == (tmp_path / "empty", tmp_path / "nowhere")
    assert list((tmp_path / "empty").iterdir()) == []


def test_any_drive_leads_to_the_others(three: list[Path]) -> None:
    site = survey(DISK, three[:1])
    assert site is not None
    assert sorted(site.drives.values()) == sorted(three)
    assert sorted(site.unnamed) == sorted(three[1:])


def test_a_drive_that_is_gone_is_remembered(three: list[Path]) -> None:
    whole = survey(DISK, three)
    assert whole is not None
    three[1].rename(three[1].with_name("pulled"))
    three[1].mkdir()
    site = survey(DISK, three)
    assert site is not None
    assert list(site.absent.values()) == [three[1]]
    assert set(site.absent) == set(whole.drives) - set(site.drives)
    assert site.places == dict(whole.drives)


def test_a_hint_leads_to_no_drive_of_another_store(three: list[Path], tmp_path: Path) -> None:
    [foreign] = make(tmp_path / "other", "drive")
    site = survey(DISK, three)
    assert site is not None
    lost = next(drive for drive, path in site.drives.items() if path == three[2])
    three[2].rename(tmp_path / "pulled")
    foreign.rename(three[2])
    found = survey(DISK, three[:2])
    assert found is not None
    assert lost in found.absent
    assert len(found.drives) == 2
    with pytest.raises(InvalidRequest, match="different stores"):
        survey(DISK, three)


@pytest.mark.parametrize(
    "damage", [b"", b"not json", b'{"format": 9, "drives": {}}', b'{"format": 1, "drives": {"x": "/"}}']
)
def test_a_damaged_hint_is_no_hint(three: list[Path], damage: bytes) -> None:
    for path in three:
        (path / PLACES_NAME).write_bytes(damage)
    assert read_places(DISK, three[0]) == {}
    site = survey(DISK, three[:1])
    assert site is not None
    assert list(site.drives.values()) == three[:1]


def test_a_damaged_identity_is_a_missing_drive_unless_it_is_all_there_is(three: list[Path]) -> None:
    (three[0] / IDENTITY_NAME).write_bytes(b"\x5a" * 60)
    site = survey(DISK, three)
    assert site is not None
    assert site.missing == (three[0],)
    assert any("not an identity" in warning for warning in site.warnings)
    with pytest.raises(Corrupt):
        survey(DISK, three[:1])


def test_a_copy_of_a_drive_and_a_directory_named_twice_are_refused(three: list[Path], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / IDENTITY_NAME).write_bytes((three[0] / IDENTITY_NAME).read_bytes())
    with pytest.raises(InvalidRequest, match="is a copy of"):
        survey(DISK, [*three, copy])
    with pytest.raises(InvalidRequest, match="twice"):
        survey(DISK, [three[0], three[0]])


def test_foreign_files_are_never_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "mail").write_text("precious")
    with pytest.raises(AlreadyExists, match="not Holdfast's"):
        survey(DISK, [tmp_path])
    assert survey(DISK, [tmp_path / "new"]) is None


def test_a_store_half_made_is_taken_back(tmp_path: Path) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    begin(DISK, SystemRandomness(), directories)
    assert undo_unfinished(DISK, directories)
    assert survey(DISK, directories) is None
    assert not undo_unfinished(DISK, directories)
