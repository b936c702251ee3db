"""Fixtures of the drives' tests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.drives.opened import Opened


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    opened = Opened(tmp_path / "drive")
    yield opened
    await opened.close()
