"""An empty mount point is a missing drive, and nobody's files are taken for a drive."""

from pathlib import Path

import pytest

from holdfast.core.errors import AlreadyExists, Corrupt, InvalidRequest, NodeDown
from holdfast.core.ids import DriveId, StoreId
from holdfast.drives.identity import (
    IDENTITY_NAME,
    DirectoryState,
    check_identity,
    create_drive,
    inspect_directory,
    read_identity,
)
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.clock import SeededRandomness
from holdfast.testing.drive_suite import refusal
from tests.unit.drives.opened import STORE, Opened

DISK = OsDisk()


def test_a_new_drive_is_readable_at_once(tmp_path: Path) -> None:
    made = create_drive(DISK, SeededRandomness(1), tmp_path / "a" / "b", STORE)
    assert read_identity(DISK, tmp_path / "a" / "b") == made
    assert made.store == STORE
    assert create_drive(DISK, SeededRandomness(2), tmp_path / "c", STORE).drive != made.drive
    check_identity(made, tmp_path, store=STORE, drive=made.drive)


def test_states_of_a_directory(tmp_path: Path) -> None:
    assert inspect_directory(DISK, tmp_path / "none") is DirectoryState.MISSING
    (tmp_path / "file").write_text("x")
    assert inspect_directory(DISK, tmp_path / "file") is DirectoryState.MISSING
    assert inspect_directory(DISK, tmp_path) is DirectoryState.FOREIGN
    (tmp_path / "fresh" / "lost+found").mkdir(parents=True)
    assert inspect_directory(DISK, tmp_path / "fresh") is DirectoryState.EMPTY
    create_drive(DISK, SeededRandomness(1), tmp_path / "fresh", STORE)
    assert inspect_directory(DISK, tmp_path / "fresh") is DirectoryState.DRIVE


def test_what_is_there_is_not_adopted(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(AlreadyExists, match="empty directory"):
        create_drive(DISK, SeededRandomness(1), tmp_path, STORE)
    assert not (tmp_path / IDENTITY_NAME).exists()
    create_drive(DISK, SeededRandomness(1), tmp_path / "d", STORE)
    with pytest.raises(AlreadyExists, match="is a drive already"):
        create_drive(DISK, SeededRandomness(1), tmp_path / "d", STORE)


async def test_an_empty_mount_point_is_a_missing_drive(opened: Opened, tmp_path: Path) -> None:
    drive = await opened.open()
    await opened.close()
    opened.path.rename(tmp_path / "elsewhere")
    error = await refusal(NodeDown, opened.open())
    assert "mount the disk" in str(error)
    opened.path.mkdir()
    await refusal(NodeDown, opened.open())
    assert list(opened.path.iterdir()) == []
    del drive


async def test_a_drive_of_another_store_is_refused(tmp_path: Path) -> None:
    opened = Opened(tmp_path / "d", create=False)
    create_drive(DISK, SeededRandomness(1), opened.path, StoreId(b"o" * 16))
    error = await refusal(InvalidRequest, opened.open())
    assert "belongs to store" in str(error)


def test_another_drive_than_expected_is_refused(tmp_path: Path) -> None:
    identity = create_drive(DISK, SeededRandomness(1), tmp_path / "d", STORE)
    with pytest.raises(InvalidRequest, match="swapped"):
        check_identity(identity, tmp_path / "d", store=STORE, drive=DriveId(bytes(16)))


def test_a_rotten_identity_is_corrupt(tmp_path: Path) -> None:
    create_drive(DISK, SeededRandomness(1), tmp_path / "d", STORE)
    (tmp_path / "d" / IDENTITY_NAME).write_bytes(b"")
    with pytest.raises(Corrupt, match="replace the drive"):
        read_identity(DISK, tmp_path / "d")
