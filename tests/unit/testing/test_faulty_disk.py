"""The faulty disks do what they are told, and the recorder forgets exactly what was not synced."""

import errno
from pathlib import Path

import pytest

from holdfast.drives.os_disk import OsDisk
from holdfast.testing.faulty_disk import Fault, FaultyDisk, RecordingDisk, keep_all, lose_all, rot, tear


@pytest.fixture
def recorder(tmp_path: Path) -> RecordingDisk:
    root = tmp_path / "root"
    root.mkdir()
    return RecordingDisk(OsDisk(), root)


def left(recorder: RecordingDisk, tmp_path: Path, survival: object, moment: int | None = None) -> dict[str, bytes]:
    target = tmp_path / f"left-{len(list(tmp_path.iterdir()))}"
    at = recorder.moment() if moment is None else moment
    recorder.recording.materialise(at, target, survival)  # type: ignore[arg-type]
    return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def test_unsynced_bytes_and_names_are_lost(recorder: RecordingDisk, tmp_path: Path) -> None:
    root = recorder.recording.root
    file = recorder.open(root / "a", create=True)
    file.write([b"one", b"two"], 0)
    assert left(recorder, tmp_path, lose_all) == {}
    assert left(recorder, tmp_path, keep_all) == {"a": b"onetwo"}
    recorder.sync_directory(root)
    assert left(recorder, tmp_path, lose_all) == {"a": b""}
    file.sync()
    file.write([b"three"], 6)
    assert left(recorder, tmp_path, lose_all) == {"a": b"onetwo"}
    assert left(recorder, tmp_path, lose_all, moment=0) == {}
    recorder.unlink(root / "a")
    assert left(recorder, tmp_path, lose_all) == {"a": b"onetwo"}
    recorder.sync_directory(root)
    assert left(recorder, tmp_path, lose_all) == {}


def test_writes_are_torn_into_sectors(recorder: RecordingDisk, tmp_path: Path) -> None:
    root = recorder.recording.root
    file = recorder.open(root / "a", create=True)
    recorder.sync_directory(root)
    file.allocate(8192)
    file.sync()
    file.write([b"x" * 8192], 0)
    outcomes = {left(recorder, tmp_path, tear(seed))["a"] for seed in range(8)}
    assert len(outcomes) == 8
    for outcome in outcomes:
        assert {outcome[at : at + 512] for at in range(0, 8192, 512)} == {b"x" * 512, bytes(512)}


def test_a_replaced_file_is_old_or_new(recorder: RecordingDisk, tmp_path: Path) -> None:
    root = recorder.recording.root
    recorder.replace_file(root / "a", b"old")
    before = recorder.moment()
    recorder.replace_file(root / "a", b"new")
    assert left(recorder, tmp_path, lose_all, before) == {"a": b"old"}
    assert left(recorder, tmp_path, lose_all) == {"a": b"new"}


def test_a_reused_inode_is_another_file(recorder: RecordingDisk, tmp_path: Path) -> None:
    root = recorder.recording.root
    for name in ("a", "b", "c"):
        file = recorder.open(root / name, create=True)
        file.write([name.encode()], 0)
        file.sync()
        recorder.sync_directory(root)
        file.close()
        if name != "c":
            recorder.unlink(root / name)
    recorder.sync_directory(root)
    assert left(recorder, tmp_path, lose_all) == {"c": b"c"}


def test_faults_strike_when_told(tmp_path: Path) -> None:
    disk = FaultyDisk(OsDisk(), root=tmp_path)
    disk.faults.append(Fault("write", "/a", skip=1, times=1, partial=True))
    file = disk.open(tmp_path / "a", create=True)
    other = disk.open(tmp_path / "b", create=True)
    file.write([b"1234"], 0)
    other.write([b"1234"], 0)
    with pytest.raises(OSError, match="Input/output") as raised:
        file.write([b"5678"], 4)
    assert raised.value.errno == errno.EIO
    assert (tmp_path / "a").read_bytes() == b"123456"
    file.write([b"5678"], 4)


def test_a_quota_is_the_size_of_the_disk(tmp_path: Path) -> None:
    disk = FaultyDisk(OsDisk(), root=tmp_path, quota_bytes=1000)
    file = disk.open(tmp_path / "a", create=True)
    file.allocate(900)
    with pytest.raises(OSError, match="No space"):
        file.write([bytes(200)], 900)
    file.write([bytes(900)], 0)
    assert disk.space(tmp_path).free == 100
    file.truncate(100)
    file.write([bytes(800)], 100)


def test_rot_flips_one_byte(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    rot(tmp_path / "a", 1)
    assert (tmp_path / "a").read_bytes() == b"a\x22c"
