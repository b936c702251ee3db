"""`holdfast doctor`: what it finds, what it does not miss, and that nothing of it stays."""

import json
import os
import stat
import time
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from holdfast.cli import doctor as doctor_module
from holdfast.cli import probing
from holdfast.cli.doctor import (
    Doctor,
    Finding,
    Grade,
    judge_space,
    judge_stamp,
    judge_syncs,
    judge_throughput,
    shared_disks,
)
from holdfast.cli.main import main
from holdfast.cli.probing import SCRATCH_PREFIX, SyncTimes, Throughput, scratch
from holdfast.cli.system import SystemClock
from holdfast.core.disk import File, Space
from holdfast.core.limits import GIB, KIB, MIB
from holdfast.drives.os_disk import OsDisk, OsFile


class SeededChance:
    def __init__(self) -> None:
        self._random = Random(1)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


async def examined(directory: Path, disk: OsDisk | None = None) -> list[Finding]:
    return await Doctor(disk or OsDisk(), SystemClock(), SeededChance(), MIB).examine(directory)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def bad(findings: list[Finding]) -> str:
    return "\n".join(finding.text for finding in findings if finding.grade is Grade.BAD)


async def test_a_good_directory_passes_and_stays_as_it_was(tmp_path: Path) -> None:
    findings = await examined(tmp_path)
    assert bad(findings) == ""
    said = "\n".join(finding.text for finding in findings)
    assert "a drive was made there, written, read, closed, opened and read again" in said
    assert "bit for bit" in said
    assert names_in(tmp_path) == []


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    assert "no such directory" in bad(await examined(tmp_path / "absent"))
    (tmp_path / "file").write_bytes(b"")
    assert "no such directory" in bad(await examined(tmp_path / "file"))


class Tmpfs(OsDisk):
    def kind(self, path: Path) -> str:
        return "tmpfs"


class Full(OsDisk):
    def space(self, path: Path) -> Space:
        return Space(100 * GIB, 10 * KIB)


class Unlocked(OsDisk):
    """flock that lets everybody in, as some network file systems do."""

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        class Lax(OsFile):
            def lock(self, *, exclusive: bool) -> None:
                pass

        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create or exclusive else 0)
        return Lax(os.open(path, flags, 0o600))


class Rotten(OsDisk):
    """One bit of what was written comes back as another."""

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        class Lying(OsFile):
            def read_into(self, buffer: memoryview, offset: int) -> int:
                done = super().read_into(buffer, offset)
                if done > 1000:
                    buffer[777] ^= 4
                return done

        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create or exclusive else 0)
        return Lying(os.open(path, flags, 0o600))


@pytest.mark.parametrize(
    ("disk", "words"),
    [
        (Tmpfs(), "lies on tmpfs, in memory"),
        (Full(), "too little to hold anything"),
        (Unlocked(), "flock lets two in at once"),
        (Rotten(), "what was written does not come back"),
    ],
)
async def test_what_is_wrong_is_found(disk: OsDisk, words: str, tmp_path: Path) -> None:
    assert words in bad(await examined(tmp_path, disk))
    assert names_in(tmp_path) == []


async def test_a_directory_that_takes_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert "nothing can be written there (Permission denied): check owner" in bad(await examined(tmp_path))


def test_leftovers_of_a_killed_run_go_and_a_living_one_stays(tmp_path: Path) -> None:
    dead = tmp_path / f"{SCRATCH_PREFIX}1"
    dead.mkdir()
    (dead / "throughput").write_bytes(b"x")
    with scratch(OsDisk(), tmp_path) as own:
        living = own.rename(tmp_path / f"{SCRATCH_PREFIX}2")
        with scratch(OsDisk(), tmp_path):
            assert living.exists()
            assert not dead.exists()


def test_measurements_mean_what_they_should() -> None:
    assert judge_syncs(SyncTimes(0.0004, 0.002)).grade is Grade.OK
    assert judge_syncs(SyncTimes(0.000002, 0.00001)).grade is Grade.NOTE
    assert judge_syncs(SyncTimes(0.05, 0.2)).grade is Grade.NOTE
    assert judge_throughput(Throughput(300 * MIB, 900 * MIB), MIB).grade is Grade.OK
    assert judge_throughput(Throughput(300 * MIB, 2 * MIB), MIB).grade is Grade.NOTE
    assert judge_space(Space(100 * GIB, 50 * GIB), 10**6).grade is Grade.OK
    assert judge_space(Space(100 * GIB, 2 * GIB), None).grade is Grade.NOTE
    assert judge_space(Space(100 * GIB, 50 * GIB), 3).grade is Grade.BAD
    assert judge_stamp(0.1).grade is Grade.OK
    assert judge_stamp(-90).grade is Grade.NOTE


def test_syncs_are_timed_by_the_clock_that_was_given(tmp_path: Path) -> None:
    class Slow:
        def __init__(self) -> None:
            self.now = 0.0

        def monotonic(self) -> float:
            self.now += 0.25
            return self.now

        def now_ns(self) -> int:
            return time.time_ns()

        async def sleep(self, seconds: float) -> None:
            raise AssertionError

    assert probing.measure_syncs(OsDisk(), tmp_path, Slow()) == SyncTimes(0.25, 0.25)


def test_a_clock_that_was_never_set() -> None:
    assert doctor_module._judge_clock(10**9, is_kept=True).grade is Grade.BAD
    assert doctor_module._judge_clock(doctor_module.CLOCK_MIN_NS, is_kept=False).grade is Grade.NOTE
    assert doctor_module._judge_clock(doctor_module.CLOCK_MIN_NS, is_kept=None).grade is Grade.OK


def test_directories_that_are_lost_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    [finding] = shared_disks([one, two, tmp_path / "absent"])
    assert "lie on one file system" in finding.text
    # Two partitions of one disk, as sysfs shows them.
    devices = tmp_path / "dev"
    devices.mkdir()
    for minor in (1, 2):
        partition = tmp_path / "sda" / f"sda{minor}"
        partition.mkdir(parents=True)
        (partition / "partition").write_text(f"{minor}\n")
        (devices / f"8:{minor}").symlink_to(partition)
    real, numbers = Path.stat, {one: os.makedev(8, 1), two: os.makedev(8, 2)}

    def moved(self: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        status = real(self, follow_symlinks=follow_symlinks)
        if self not in numbers:
            return status
        return os.stat_result((*status[: stat.ST_DEV], numbers[self], *status[stat.ST_DEV + 1 :]))

    monkeypatch.setattr(Path, "stat", moved)
    [finding] = shared_disks([one, two], devices)
    assert "partitions of one disk (sda)" in finding.text
    numbers[two] = os.makedev(9, 1)
    assert [finding.grade for finding in shared_disks([one, two], devices)] == [Grade.OK]


def test_the_command_and_its_exit_status(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["doctor", str(tmp_path), "--size", "1", "--json"])
    assert said.exit_code == 0
    document = json.loads(said.stdout)
    assert document["fit"] is True
    assert {"free_bytes", "sync_p50_seconds", "read_bytes_per_second"} <= {
        name for finding in document["findings"] for name in finding
    }
    said = CliRunner().invoke(main, ["doctor", str(tmp_path), str(tmp_path / "absent"), "--size", "1"])
    assert said.exit_code == 1
    assert "1 thing must be changed first" in said.output
    said = CliRunner().invoke(main, ["doctor"], env={"HOLDFAST_DRIVES": ""})
    assert said.exit_code == 1
    assert "name at least one directory" in said.output
