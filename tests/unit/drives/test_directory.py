"""The directory drive keeps the promises of `Drive`, over restarts too."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from holdfast.core.ids import StoreId
from holdfast.core.limits import MIB
from holdfast.drives.directory import DirectoryDrive, DriveSizes, open_drive
from holdfast.drives.identity import create_drive
from holdfast.drives.interface import Drive
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.clock import SeededRandomness
from holdfast.testing.drive_suite import DriveSuite, DurableDriveSuite

STORE = StoreId(b"s" * 16)
SMALL = DriveSizes(segment=8 * MIB, allocation=MIB, index_map=64 * 1024)


class Opened:
    """A drive and how to open it again."""

    def __init__(self, path: Path, sizes: DriveSizes) -> None:
        self.path = path
        self.sizes = sizes
        self.randomness = SeededRandomness(1)
        self.drives: list[DirectoryDrive] = []
        create_drive(OsDisk(), self.randomness, path, STORE)

    async def open(self) -> DirectoryDrive:
        drive = await open_drive(self.path, disk=OsDisk(), randomness=self.randomness, store=STORE, sizes=self.sizes)
        self.drives.append(drive)
        return drive

    async def close(self) -> None:
        for drive in self.drives:
            await drive.close()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    opened = Opened(tmp_path / "drive", SMALL)
    yield opened
    await opened.close()


@pytest.fixture
async def drive(opened: Opened) -> DirectoryDrive:
    return await opened.open()


@pytest.fixture
def reopen(opened: Opened) -> Callable[[], Awaitable[Drive]]:
    async def again() -> Drive:
        await opened.close()
        return await opened.open()

    return again


class TestDirectoryDrive(DriveSuite, DurableDriveSuite):
    pass
