"""The partition table: spread, balance, few moves, and the same on every machine."""

import json
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.ids import BlockId
from holdfast.placement import (
    Layout,
    LayoutDrive,
    State,
    add,
    decode_layout,
    encode_layout,
    first_layout,
    moves,
    partition_of,
    partition_table,
    replace_drive,
    restore,
    retire,
)
from holdfast.placement.table import PARTITIONS, table_moves
from tests.unit.placement.sample import drive, fair, held, mixed

VECTORS = Path(__file__).parents[2] / "vectors"

GROUPS = {
    "6 equal": [drive(i) for i in range(6)],
    "7 equal": [drive(i) for i in range(7)],
    "8 mixed": mixed(8),
    "12 mixed": mixed(12, seed=1),
    "24 mixed": mixed(24, seed=2),
    "60 mixed": mixed(60, seed=3),
    "60 on 10 nodes": mixed(60, per_node=6, seed=4),
    "60 in 3 zones": mixed(60, per_node=5, per_zone=20, seed=5),
    "60 in 4 zones": mixed(60, per_node=5, per_zone=15, seed=6),
}
# What the fullest drive may hold over the mean, relative to weight.
BALANCE_MAX = 1.10
# What a change may move over the least that any table would have to move.
MOVES_MAX = 1.25


table_of = cache(partition_table)


def least_moves(old: Layout, new: Layout, width: int) -> float:
    """What drives that should hold more in `new` must at least take in."""
    before = fair(old, width)
    return sum(max(0.0, share - before.get(drive_id, 0.0)) for drive_id, share in fair(new, width).items())


@pytest.mark.parametrize(
    ("name", "width"),
    [
        ("6 equal", 6),
        ("7 equal", 6),
        ("8 mixed", 6),
        ("12 mixed", 6),
        ("12 mixed", 3),
        ("24 mixed", 6),
        ("60 mixed", 3),
        ("60 in 4 zones", 6),
    ],
)
def test_balance_and_moves_through_a_history(name: str, width: int) -> None:
    """Add, drain, replace, add, lose: after each, the fullest drive is within bounds and hardly anything else moved."""
    group = GROUPS[name]
    last = group[-1]
    newcomers = [LayoutDrive(drive(9000 + i).id, 2 * 10**12, last.node, last.zone) for i in range(3)]
    layouts = [first_layout(group)]
    layouts.append(add(layouts[-1], newcomers[:1]))
    layouts.append(retire(layouts[-1], group[2].id, State.DRAINING))
    layouts.append(add(layouts[-1], newcomers[1:2]))
    layouts.append(retire(layouts[-1], group[2].id, State.GONE))
    layouts.append(retire(layouts[-1], group[0].id, State.GONE))
    for layout in layouts:
        shares = fair(layout, width)
        counts = held(table_of(layout, width))
        assert max(counts[drive_id] / share for drive_id, share in shares.items()) <= BALANCE_MAX
    for old, new in pairwise(layouts):
        changes = table_moves(table_of(old, width), table_of(new, width))
        moved = sum(move.target is not None for move in changes)
        assert moved <= MOVES_MAX * least_moves(old, new, width) + len(new.active)


@pytest.mark.parametrize("count", [6, 9, 20])
def test_adding_one_of_n_drives_moves_its_share(count: int) -> None:
    old = first_layout(drive(i) for i in range(count))
    new = add(old, [drive(99)])
    moved = list(moves(old, new, 6))
    assert {move.target for move in moved} == {drive(99).id}
    assert len(moved) / (6 * PARTITIONS) == pytest.approx(1 / (count + 1), rel=MOVES_MAX - 1)


def test_a_replacement_takes_exactly_the_places_of_what_it_replaces() -> None:
    first = first_layout(mixed(9))
    gone = first.drives[4]
    second = replace_drive(first, gone.id, replace(drive(77), weight=gone.weight))
    third = add(second, [drive(78)])
    fourth = replace_drive(third, drive(77).id, replace(drive(79), weight=gone.weight))
    assert {(move.source, move.target) for move in moves(first, second, 3)} == {(gone.id, drive(77).id)}
    assert {(move.source, move.target) for move in moves(third, fourth, 3)} == {(drive(77).id, drive(79).id)}


def test_a_larger_replacement_takes_more_and_nothing_else_moves() -> None:
    first = first_layout(drive(i) for i in range(9))
    second = replace_drive(first, drive(4).id, drive(77, 2))
    changed = list(moves(first, second, 3))
    assert {move.target for move in changed} == {drive(77).id}
    assert len(changed) <= fair(second, 3)[drive(77).id] + 1


def test_a_drive_restored_from_draining_gets_its_places_back() -> None:
    first = first_layout(mixed(9))
    back = restore(retire(first, first.drives[3].id, State.DRAINING), first.drives[3].id)
    assert list(moves(first, back, 6)) == []


@pytest.mark.parametrize("width", [3, 6])
@pytest.mark.parametrize("name", GROUPS)
def test_spread_over_drives_nodes_and_zones(name: str, width: int) -> None:
    layout = first_layout(GROUPS[name])
    by_id = {entry.id: entry for entry in layout.drives}
    nodes = {(entry.zone, entry.node) for entry in layout.drives}
    zones = {entry.zone for entry in layout.drives}
    table = table_of(layout, width)
    assert len(table.orders) == PARTITIONS
    for order in table.orders:
        homes = order[:width]
        assert len(homes) == min(width, len(by_id))
        assert sorted(order) == sorted(by_id)
        of_nodes = Counter((by_id[home].zone, by_id[home].node) for home in homes)
        of_zones = Counter(by_id[home].zone for home in homes)
        if len(nodes) >= width:
            assert max(of_nodes.values()) == 1
        if len(zones) >= width:
            assert max(of_zones.values()) == 1
        elif len(nodes) >= width and name in ("60 in 3 zones", "60 in 4 zones"):
            assert max(of_zones.values()) == -(-width // len(zones))


def test_handoffs_prefer_nodes_that_hold_nothing_of_the_block() -> None:
    layout = first_layout(drive(i, node=f"n{i // 2}") for i in range(10))
    node = {entry.id: entry.node for entry in layout.drives}
    for order in partition_table(layout, 3).orders:
        used = {node[home] for home in order[:3]}
        fresh = [node[handoff] not in used for handoff in order[3:]]
        assert fresh == sorted(fresh, reverse=True)


def test_every_fragment_index_falls_on_every_drive() -> None:
    """Else some drives would serve all reads and others none."""
    table = partition_table(first_layout(GROUPS["6 equal"]), 6)
    for index in range(6):
        counts = Counter(order[index] for order in table.orders)
        assert max(counts.values()) < 1.2 * PARTITIONS / 6


def test_with_too_few_drives_the_last_fragments_have_no_home_and_hardly_anything_moves() -> None:
    six = first_layout(GROUPS["6 equal"])
    five = retire(six, drive(2).id, State.GONE)
    table, changes = partition_table(five, 6), list(moves(six, five, 6))
    assert {len(order) for order in table.orders} == {5}
    # What was on the drive that left goes nowhere, but for the last fragment, which takes over its position.
    assert {move.source for move in changes if move.index < 5} == {drive(2).id}
    assert {move.target for move in changes if move.index == 5} == {None}
    grown = add(five, [drive(50)])
    assert {(move.source, move.target) for move in moves(five, grown, 6)} == {(None, drive(50).id)}
    assert partition_table(first_layout([]), 2).drives(BlockId(bytes(32))) == ()


@given(st.integers(1, 9), st.integers(1, 8), st.data())
@settings(max_examples=8, deadline=None)
def test_any_history_keeps_homes_apart(count: int, width: int, data: st.DataObject) -> None:
    zones, coins = st.sampled_from(["a", "b"]), st.booleans()
    layout = first_layout(drive(i, data.draw(st.integers(1, 9)), f"n{i % 4}", data.draw(zones)) for i in range(count))
    for step in range(data.draw(st.integers(0, 4))):
        active = [entry.id for entry in layout.active]
        if data.draw(coins) and active:
            layout = retire(layout, active[data.draw(st.integers(0, len(active) - 1))], State.GONE)
        else:
            layout = add(layout, [drive(100 + step, data.draw(st.integers(1, 9)), "n9", data.draw(zones))])
    ids = sorted(entry.id for entry in layout.active)
    for order in partition_table(layout, width).orders:
        assert sorted(order) == ids


def test_blocks_fall_evenly_on_partitions() -> None:
    counts = Counter(partition_of(BlockId(blake3(bytes([i % 256, i // 256])).digest())) for i in range(40_000))
    assert len(counts) > 4000
    assert max(counts) < PARTITIONS
    assert partition_of(BlockId(b"\xff" * 32)) == PARTITIONS - 1
    assert partition_of(BlockId(b"\x00\x10" + bytes(30))) == 1


def test_sixty_drives_are_placed_while_nobody_waits_long() -> None:
    layout = first_layout(GROUPS["60 mixed"])
    taken = []
    for _ in range(3):
        began = time.process_time()
        partition_table(layout, 6)
        taken.append(time.process_time() - began)
    assert min(taken) < 1.0, "0.15 s on an idle machine"


@pytest.mark.parametrize("case", json.loads((VECTORS / "placement.json").read_text())["cases"], ids=lambda c: c["name"])
def test_golden_tables(case: dict[str, object]) -> None:
    layout = decode_layout(bytes.fromhex(str(case["layout"])))
    assert encode_layout(layout).hex() == case["layout"]
    table = partition_table(layout, int(str(case["width"])))
    lines = [" ".join(drive_id.hex() for drive_id in order) for order in table.orders]
    assert lines[:3] == case["first"]
    assert blake3("\n".join(lines).encode()).hexdigest() == case["blake3"]
