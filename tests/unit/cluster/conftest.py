"""Fixtures of the cluster's tests."""

import pytest

from holdfast.cluster import places
from tests.unit.cluster.fakes import known_table


@pytest.fixture(autouse=True)
def known_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "partition_table", known_table)
