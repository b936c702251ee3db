"""A drive of a test, and how to open it again."""

from pathlib import Path

from holdfast.core.disk import Disk
from holdfast.core.ids import StoreId
from holdfast.core.limits import KIB, MIB
from holdfast.drives.directory import DirectoryDrive, DriveSizes, open_drive
from holdfast.drives.identity import create_drive
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.clock import SeededRandomness

STORE = StoreId(b"s" * 16)

# Small enough that segments roll, space is allocated and the index's map grows within a test.
SMALL = DriveSizes(segment=8 * MIB, allocation=MIB, index_map=64 * KIB, reserve=256 * KIB)


class Opened:
    """A directory with a drive in it, and the handles that the test has on it."""

    def __init__(
        self, path: Path, *, sizes: DriveSizes = SMALL, disk: Disk | None = None, create: bool = True, seed: int = 1
    ) -> None:
        self.path = path
        self.sizes = sizes
        self.disk: Disk = disk if disk is not None else OsDisk()
        self.randomness = SeededRandomness(seed)
        self.drives: list[DirectoryDrive] = []
        if create:
            create_drive(self.disk, self.randomness, path, STORE)

    async def open(self) -> DirectoryDrive:
        drive = await open_drive(self.path, disk=self.disk, randomness=self.randomness, store=STORE, sizes=self.sizes)
        self.drives.append(drive)
        return drive

    async def close(self) -> None:
        for drive in self.drives:
            await drive.close()
        self.drives.clear()

    def segments(self) -> list[Path]:
        return sorted((self.path / "segments").iterdir())
