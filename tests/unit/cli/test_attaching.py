"""Drives come and go under a process that has the store open."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.cli import lookout
from holdfast.cli.attaching import RETRY_FIRST_SECONDS, Attachments
from holdfast.cli.site import begin, finish, survey, write_places
from holdfast.cli.system import SystemRandomness
from holdfast.core.ids import DriveId
from holdfast.drives.identity import IDENTITY_NAME, create_drive
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.clock import FakeClock
from holdfast.testing.faulty_disk import Fault, FaultyDisk

DISK = OsDisk()

OPEN_MAX_SECONDS = 60.0


class Drives:
    """Three directories, and a process that looks at them."""

    def __init__(self, root: Path) -> None:
        self.paths = [root / name for name in ("one", "two", "three")]
        site = begin(DISK, SystemRandomness(), self.paths)
        write_places(DISK, self.paths, site.drives)
        finish(DISK, self.paths)
        self.clock = FakeClock()
        found = survey(DISK, self.paths)
        assert found is not None
        self.site = found
        self.disk = FaultyDisk(DISK)
        self.attachments = Attachments(found, self.paths, self.disk, SystemRandomness(), self.clock)

    @property
    def open_at(self) -> set[Path]:
        return {drive.directory for drive in self.attachments.drives.values()}

    def id_at(self, path: Path) -> DriveId:
        return next(drive for drive, at in self.site.drives.items() if at == path)

    def hang(self, operation: str, path: Path) -> threading.Event:
        """One such call does not come back until the event is set."""
        fault = Fault(operation, str(path), times=1, error=0, until=threading.Event())
        self.disk.faults.append(fault)
        assert fault.until is not None
        return fault.until

    async def look_later(self) -> None:
        await self.clock.advance(2 * RETRY_FIRST_SECONDS)
        await self.attachments.look()


@pytest.fixture
async def drives(tmp_path: Path) -> AsyncIterator[Drives]:
    drives = Drives(tmp_path)
    await drives.attachments.look()
    yield drives
    await drives.attachments.close()


async def test_a_pulled_drive_is_let_go_of_and_opened_when_it_is_back(drives: Drives, tmp_path: Path) -> None:
    assert drives.open_at == set(drives.paths)
    pulled = drives.paths[1]
    pulled.rename(tmp_path / "pulled")
    pulled.mkdir()
    await drives.attachments.look()
    assert drives.open_at == set(drives.paths) - {pulled}
    assert "does not hold it any more" in drives.attachments.why_missing(drives.id_at(pulled))
    assert list(pulled.iterdir()) == []
    pulled.rmdir()
    (tmp_path / "pulled").rename(pulled)
    await drives.look_later()
    assert drives.open_at == set(drives.paths)
    assert drives.attachments.changes == 3 + 1 + 1


async def test_swapped_drives_are_opened_where_they_are(drives: Drives, tmp_path: Path) -> None:
    one, two, _ = drives.paths
    first = drives.id_at(one)
    one.rename(tmp_path / "between")
    two.rename(one)
    (tmp_path / "between").rename(two)
    await drives.attachments.look()
    await drives.look_later()
    assert drives.attachments.drives[first].directory == two
    assert len(drives.attachments.drives) == 3


async def test_a_drive_that_a_command_made_is_found(drives: Drives, tmp_path: Path) -> None:
    new = create_drive(DISK, SystemRandomness(), tmp_path / "new", drives.site.store).drive
    await drives.attachments.look()
    assert new not in drives.attachments.drives
    write_places(DISK, drives.paths, {**drives.site.drives, new: tmp_path / "new"})
    await drives.attachments.look()
    assert drives.attachments.drives[new].directory == tmp_path / "new"


async def test_a_drive_that_is_done_with_is_closed_for_good(drives: Drives) -> None:
    gone = drives.id_at(drives.paths[0])
    drives.attachments.gone = {gone}
    await drives.attachments.look()
    await drives.look_later()
    assert gone not in drives.attachments.drives


async def test_another_drive_in_its_place_is_not_taken_for_it(drives: Drives, tmp_path: Path) -> None:
    path = drives.paths[2]
    old = drives.id_at(path)
    path.rename(tmp_path / "old")
    new = create_drive(DISK, SystemRandomness(), path, drives.site.store).drive
    await drives.attachments.look()
    await drives.look_later()
    assert old not in drives.attachments.drives
    assert drives.attachments.drives[new].directory == path


async def test_a_disk_that_hangs_keeps_nobody_from_noticing_others(
    drives: Drives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "ANSWER_MAX_SECONDS", 0.1)
    hung, pulled, _ = drives.paths
    kept = drives.attachments.drives[drives.id_at(hung)]
    answers = drives.hang("read_file", hung / IDENTITY_NAME)
    try:
        await drives.attachments.notice()
        pulled.rename(tmp_path / "pulled")
        pulled.mkdir()
        await drives.attachments.notice()
        assert drives.open_at == set(drives.paths) - {pulled}
        assert drives.attachments.drives[kept.id] is kept
        assert sum(thread.name == f"look {hung}" for thread in threading.enumerate()) == 1
        hung.rename(tmp_path / "hung")
        hung.mkdir()
    finally:
        answers.set()
    await drives.look_later()
    await drives.look_later()
    assert kept.id not in drives.attachments.drives


async def test_who_looks_at_the_same_time_sees_the_same(drives: Drives, tmp_path: Path) -> None:
    """A command looks itself, beside the watch of its own process."""
    new = create_drive(DISK, SystemRandomness(), tmp_path / "new", drives.site.store).drive
    write_places(DISK, drives.paths, {**drives.site.drives, new: tmp_path / "new"})
    attachments = drives.attachments
    await asyncio.gather(attachments.notice(), attachments.look(), attachments.notice(), attachments.look())
    assert drives.open_at == {*drives.paths, tmp_path / "new"}


async def test_a_drive_that_hangs_while_it_is_opened_keeps_nobody_waiting(drives: Drives, tmp_path: Path) -> None:
    slow, back, _ = drives.paths
    for path in (slow, back):
        path.rename(tmp_path / f"pulled-{path.name}")
        path.mkdir()
    await drives.attachments.look()
    for path in (slow, back):
        path.rmdir()
        (tmp_path / f"pulled-{path.name}").rename(path)
    answers = drives.hang("list_directory", slow)
    try:
        await drives.clock.advance(2 * RETRY_FIRST_SECONDS)
        await drives.attachments.notice()
        await asyncio.wait_for(drives.attachments._opening[drives.id_at(back)], OPEN_MAX_SECONDS)
        await drives.attachments.notice()
        assert drives.open_at == set(drives.paths) - {slow}
    finally:
        answers.set()
    await drives.attachments.look()
    assert drives.open_at == set(drives.paths)
