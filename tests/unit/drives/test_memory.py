"""The memory drive keeps the promises of `Drive`."""

import pytest

from holdfast.core.errors import Full
from holdfast.core.ids import DriveId
from holdfast.core.limits import MIB
from holdfast.drives.memory import MemoryDrive
from holdfast.testing.drive_suite import DriveSuite, key_of, make_fragment, refusal


class TestMemoryDrive(DriveSuite):
    @pytest.fixture
    def drive(self) -> MemoryDrive:
        return MemoryDrive(DriveId(bytes(16)), capacity=64 * MIB)


async def test_a_full_drive_still_reads_and_deletes() -> None:
    drive = MemoryDrive(DriveId(bytes(16)), capacity=10_000)
    await drive.put([make_fragment(1, 6000)])
    await refusal(Full, drive.put([make_fragment(2, 6000)]))
    assert (await drive.get(key_of(1))).length == 6000
    await drive.delete([key_of(1)])
    await drive.put([make_fragment(2, 6000)])
