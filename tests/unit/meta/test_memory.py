"""The map in memory passes the shared suite."""

from collections.abc import AsyncIterator

import pytest

from holdfast.core.errors import Unavailable
from holdfast.meta.interface import Meta
from holdfast.meta.memory import MemoryMeta
from holdfast.testing.meta_suite import MetaSuite, refusal


class TestMemoryMeta(MetaSuite):
    @pytest.fixture
    async def meta(self) -> AsyncIterator[Meta]:
        meta = MemoryMeta()
        yield meta
        await meta.close()

    @pytest.fixture
    def peer(self, meta: Meta) -> Meta:
        return meta

    async def test_a_closed_map_says_so(self, meta: Meta) -> None:
        await meta.close()
        await refusal(Unavailable, meta.get(b"key"))
