"""Lists of ids against a dict: any lists, any order, runs of any length."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Unavailable
from holdfast.gateways.sos.id_lists import IdLists

IDS = st.text("ab1", min_size=1, max_size=4)


async def batches(ids: Sequence[str], size: int, *, breaks: bool = False) -> AsyncIterator[Sequence[str]]:
    for start in range(0, len(ids), size):
        yield ids[start : start + size]
    if breaks:
        raise Unavailable("broke off")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from("xyz"), st.lists(IDS, max_size=30)), st.integers(1, 10), st.integers(1, 7))
def test_merged_is_what_a_dict_says(tmp_path: Path, listed: dict[str, list[str]], run_ids: int, batch_ids: int) -> None:
    lists = IdLists(tmp_path, run_ids)
    for server, ids in listed.items():
        asyncio.run(lists.take(server, batches(ids, batch_ids)))
    expected = {
        name: {server for server, ids in listed.items() if name in ids} for ids in listed.values() for name in ids
    }
    merged = list(lists.merged())
    lists.close()
    assert [name for name, _ in merged] == sorted(expected)
    assert {name: set(servers) for name, servers in merged} == expected
    assert all(len(servers) == len(set(servers)) for _, servers in merged)


async def test_a_list_that_breaks_off_does_not_count(tmp_path: Path) -> None:
    lists = IdLists(tmp_path, run_ids=2)
    await lists.take("good", batches(["a", "b"], 1))
    with pytest.raises(Unavailable):
        await lists.take("bad", batches(["a", "c", "d"], 1, breaks=True))
    assert list(lists.merged()) == [("a", ["good"]), ("b", ["good"])]
    assert lists.counts == {"good": 2}
    lists.close()
