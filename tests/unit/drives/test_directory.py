"""The directory drive keeps the promises of `Drive`, over restarts too."""

from collections.abc import Awaitable, Callable

import pytest

from holdfast.drives.directory import DirectoryDrive
from holdfast.drives.interface import Drive
from holdfast.testing.drive_suite import DriveSuite, DurableDriveSuite
from tests.unit.drives.opened import Opened


class TestDirectoryDrive(DriveSuite, DurableDriveSuite):
    @pytest.fixture
    async def drive(self, opened: Opened) -> DirectoryDrive:
        return await opened.open()

    @pytest.fixture
    def reopen(self, opened: Opened) -> Callable[[], Awaitable[Drive]]:
        async def again() -> Drive:
            await opened.close()
            return await opened.open()

        return again
