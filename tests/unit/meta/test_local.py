"""The embedded engine passes the shared suite, over one drive and over several."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.meta.interface import Meta
from holdfast.testing.meta_suite import MetaSuite
from tests.unit.meta.stores import Place


class TestOneDrive(MetaSuite):
    drives, losses = 1, 0

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(tmp_path, self.drives, self.losses).create()

    @pytest.fixture
    async def meta(self, place: Place) -> AsyncIterator[Meta]:
        async with await place.open() as meta:
            yield meta

    @pytest.fixture
    async def peer(self, place: Place, meta: Meta) -> AsyncIterator[Meta]:
        async with await place.open() as peer:
            yield peer


class TestThreeMirrors(TestOneDrive):
    drives, losses = 5, 2
