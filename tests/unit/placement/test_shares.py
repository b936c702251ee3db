"""Fair shares: in proportion to weight, as far as drives, nodes and zones can hold."""

from math import fsum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.placement.shares import fair_shares, node_of
from tests.unit.placement.sample import drive


def test_equal_drives_share_equally() -> None:
    shares = fair_shares([drive(i) for i in range(8)], 6)
    assert shares.expected == pytest.approx([6 / 8] * 8)
    assert (shares.per_node, shares.per_zone) == (6, 6)


def test_weights_are_kept_until_a_drive_is_full() -> None:
    assert fair_shares([drive(0, 3), drive(1, 1), drive(2, 2)], 1).expected == pytest.approx([0.5, 1 / 6, 1 / 3])
    assert fair_shares([drive(0, 100), drive(1, 1), drive(2, 1)], 2).expected == pytest.approx([1, 0.5, 0.5])


def test_one_fragment_to_a_node_and_zone_while_there_are_enough() -> None:
    group = [drive(i, 1, f"n{i // 2}", f"z{i // 4}") for i in range(12)]
    assert (fair_shares(group, 3).per_node, fair_shares(group, 3).per_zone) == (1, 1)
    assert (fair_shares(group, 6).per_node, fair_shares(group, 6).per_zone) == (1, 2)
    assert (fair_shares(group, 7).per_node, fair_shares(group, 7).per_zone) == (2, 3)
    assert (fair_shares(group, 12).per_node, fair_shares(group, 12).per_zone) == (2, 4)


def test_nodes_come_before_zones() -> None:
    """One zone has a single node: three fragments there would be lost with that node, though six nodes are there."""
    group = [drive(i, 1, "only", "a") for i in range(6)] + [drive(6 + i, 1, f"n{i}", "b") for i in range(5)]
    shares = fair_shares(group, 6)
    assert (shares.per_node, shares.per_zone) == (1, 5)


def test_nodes_of_one_name_in_two_zones_are_two() -> None:
    group = [drive(0, 1, "n", "a"), drive(1, 1, "n", "b")]
    assert fair_shares(group, 2).per_node == 1
    assert node_of(group[0]) != node_of(group[1])


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 4), st.integers(0, 2)), min_size=1, max_size=15), st.data()
)
def test_shares_add_up_and_keep_every_bound(shapes: list[tuple[int, int, int]], data: st.DataObject) -> None:
    group = [drive(i, weight, f"n{node}", f"z{zone}") for i, (weight, node, zone) in enumerate(shapes)]
    width = data.draw(st.integers(1, len(group)))
    shares = fair_shares(group, width)
    assert fsum(shares.expected) == pytest.approx(width)
    assert all(0 < share <= 1 for share in shares.expected)
    of_nodes: dict[tuple[str, str], float] = {}
    of_zones: dict[str, float] = {}
    for entry, share in zip(group, shares.expected, strict=True):
        of_nodes[node_of(entry)] = of_nodes.get(node_of(entry), 0) + share
        of_zones[entry.zone] = of_zones.get(entry.zone, 0) + share
    assert max(of_nodes.values()) <= shares.per_node + 1e-9
    assert max(of_zones.values()) <= shares.per_zone + 1e-9
