"""Keys on disks that fail: a half-written file is no key, and one dead drive keeps nobody from putting it on others."""

from pathlib import Path

import pytest

from holdfast.cli.keyring import _put_on_drives, _write_new
from holdfast.cli.keys import drives_with_kek
from holdfast.core.errors import AccessDenied, AlreadyExists, Unavailable
from holdfast.crypto.kek import new_kek
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.clock import SeededRandomness
from holdfast.testing.faulty_disk import Fault, FaultyDisk


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path, operation: str) -> None:
    disk = FaultyDisk(OsDisk())
    disk.faults.append(Fault(operation, times=1, partial=True))
    path = tmp_path / "backup"
    with pytest.raises(Unavailable, match="could not be written"):
        _write_new(disk, path, b"a key")
    assert not path.exists()
    _write_new(disk, path, b"a key")
    assert path.read_bytes() == b"a key"
    with pytest.raises(AlreadyExists):
        _write_new(disk, path, b"another")
    with pytest.raises(AccessDenied):
        _write_new(disk, tmp_path / "nowhere" / "backup", b"a key")


def test_a_drive_that_takes_no_key_is_told_and_passed_by(tmp_path: Path) -> None:
    disk = FaultyDisk(OsDisk())
    drives = [tmp_path / name for name in "abc"]
    kek = new_kek(SeededRandomness(1))
    disk.faults.append(Fault("replace_file", path=str(drives[1])))
    assert _put_on_drives(disk, drives, kek) == [drives[1]]
    assert drives_with_kek(OsDisk(), drives) == [drives[0], drives[2]]


def test_a_key_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    disk = FaultyDisk(OsDisk())
    disk.faults.append(Fault("replace_file"))
    with pytest.raises(Unavailable, match="no drive took the key"):
        _put_on_drives(disk, [tmp_path / "a", tmp_path / "b"], new_kek(SeededRandomness(1)))
