from collections.abc import Iterator

import pytest

from holdfast.tree import SealingThreads
from tests.unit.tree.stores import sealing_threads


@pytest.fixture
def threads() -> Iterator[SealingThreads]:
    made = sealing_threads()
    yield made
    assert made.blocks.taken == 0, "a tree kept something of the budget"
    made._executor.shutdown()
