"""The partition table: for each of 4,096 partitions of the block ids, the drives where fragments 0, 1, ... belong.

Every other active drive follows as a handoff: it stands in, in that order, for a home that does not answer. The table
follows from the layout and the width alone, so every process has the same one.

How it is made (docs/adr/0004-placement.md argues and measures; docs/formats/layout.md has the arithmetic):
1. The drives that were there first are ranked for each partition: odds of a draw over odds of the drive's share
   (Pareto sampling: the best `width` contain a drive about as often as its share says, whatever the weights). The best
   that keep each node and zone within its bound are the homes.
2. Later comings and goings are replayed, version by version. Positions of who left go to the best that fits; who is
   below its share takes positions from those above theirs. Nothing else moves: fragments of one block differ by
   position, so a change of order would cost as much as a change of drive.

Invariants: no two homes of a partition are the same drive; no node and no zone holds more than its bound, unless a
group is so small that a home would stay empty otherwise.
"""

import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from blake3 import blake3

from holdfast.core.ids import BlockId, DriveId
from holdfast.placement.layout import Layout, LayoutDrive
from holdfast.placement.shares import Node, fair_shares, node_of

# 12 bits of a block's id: with 60 drives and 6 fragments a drive has some 400 positions, enough to level to a percent.
PARTITION_BITS = 12
PARTITIONS = 1 << PARTITION_BITS

# While founding, a drive passes partitions on to the next in rank from here on; afterwards drives below their share
# claim theirs, and it is nearer to 1. A cap of 1 would leave the last partitions too little choice.
LOAD_CAP = 1.02

# A drive claims positions up to this part of its share. The last hundredths cost most of the search, where zones leave
# little choice, and would be moved for nothing.
LOAD_CLAIM = 0.98

DRAW_RANGE = 1 << 32
DRAW_BYTES = 4
DRAW_KEY = blake3(b"holdfast v1 seat draws").digest()

# A share of 1 has infinite odds, and could not be ranked.
SHARE_MAX = 1 - 2**-20

# Expected to be below it are some twice the `width` seats: sorting only those saves half of the founding.
RANK_NEAR = 3.0

NOBODY = -1


def partition_of(block: BlockId) -> int:
    """The partition of a block: the first bits of its id, big-endian."""
    return int.from_bytes(block[:2], "big") >> (16 - PARTITION_BITS)


@dataclass(frozen=True, slots=True)
class Move:
    """A fragment position of a partition whose home changes. None is no home: there are too few drives."""

    partition: int
    index: int
    source: DriveId | None
    target: DriveId | None


@dataclass(frozen=True, slots=True)
class PartitionTable:
    version: int
    """Of the layout."""
    width: int
    """Fragments of a block."""
    orders: tuple[tuple[DriveId, ...], ...]
    """By partition, every active drive: the homes of fragments 0, 1, ..., then handoffs in the order in which they
    stand in. Where there are fewer drives than `width`, the last fragments have no home."""

    def drives(self, block: BlockId) -> tuple[DriveId, ...]:
        """Every active drive in order of preference."""
        return self.orders[partition_of(block)]

    def homes(self, block: BlockId) -> tuple[DriveId, ...]:
        return self.orders[partition_of(block)][: self.width]


def partition_table(layout: Layout, width: int) -> PartitionTable:
    """The table for blocks of `width` fragments. Takes some tenths of a second for 60 drives: keep it."""
    orders = tuple(_Builder(layout, width).orders()) if layout.active else ((),) * PARTITIONS
    return PartitionTable(layout.version, width, orders)


def moves(old: Layout, new: Layout, width: int) -> Iterator[Move]:
    """Every position of the tables of `width` whose home is another in `new` than in `old`."""
    return table_moves(partition_table(old, width), partition_table(new, width))


def table_moves(before: PartitionTable, after: PartitionTable) -> Iterator[Move]:
    """As `moves`, for tables of one width that are at hand."""
    width = after.width
    for partition, (left, came) in enumerate(zip(before.orders, after.orders, strict=True)):
        for index, (source, target) in enumerate(zip_longest(left[:width], came[:width])):
            if source != target:
                yield Move(partition, index, source, target)


class _Builder:
    """Names seats by their number, in order of their bytes. NOBODY is an empty home."""

    def __init__(self, layout: Layout, width: int) -> None:
        self.width = width
        self.drives = layout.drives
        seats = sorted({drive.seat for drive in layout.drives})
        self.seat_numbers = {seat: number for number, seat in enumerate(seats)}
        self.draws = [_draws(seat) for seat in seats]
        self.homes = [[NOBODY] * width for _ in range(PARTITIONS)]
        self.loads = [0] * len(seats)
        # What follows holds for the version that is being replayed.
        self.sitting: dict[int, LayoutDrive] = {}
        self.nodes: dict[int, Node] = {}
        self.targets = [0.0] * len(seats)
        self.odds = [1.0] * len(seats)
        self.per_node = self.per_zone = width

    def orders(self) -> Iterator[tuple[DriveId, ...]]:
        changes = {drive.since for drive in self.drives} | {drive.until for drive in self.drives if drive.until}
        for version in sorted(changes):
            self._replay(version)
        seats = list(self.sitting)
        ids = {i: drive.id for i, drive in self.sitting.items()}
        turned = [seats[turn:] + seats[:turn] for turn in range(len(seats))]
        several_per_node = len(set(self.nodes.values())) < len(seats)
        for partition, homes in enumerate(self.homes):
            handoffs = [i for i in turned[partition % len(seats)] if i not in homes]
            if several_per_node:
                taken = {self.nodes[i] for i in homes if i != NOBODY}
                handoffs.sort(key=lambda i: self.nodes[i] in taken)
            yield tuple([ids[i] for i in homes if i != NOBODY] + [ids[i] for i in handoffs])

    def _replay(self, version: int) -> None:
        """Bring the homes to what they are in this version of the layout."""
        there = [(self.seat_numbers[drive.seat], drive) for drive in self.drives if _was_active(drive, version)]
        self.sitting = dict(sorted(there, key=lambda pair: pair[0]))
        self.nodes = {i: node_of(drive) for i, drive in self.sitting.items()}
        self.targets = [0.0] * len(self.targets)
        if self.sitting:
            shares = fair_shares(list(self.sitting.values()), min(self.width, len(self.sitting)))
            self.per_node, self.per_zone = shares.per_node, shares.per_zone
            for i, share in zip(self.sitting, shares.expected, strict=True):
                self.targets[i] = share * PARTITIONS
                self.odds[i] = (1 - min(share, SHARE_MAX)) / min(share, SHARE_MAX)
        if any(self.loads):
            self._vacate()
        else:
            self._found()
        self._fill()
        for i in sorted(self.sitting, key=lambda i: (self._excess(i), i)):
            self._claim(i)

    def _found(self) -> None:
        """The homes of the first version: the best by rank that fit and have room.

        Whether a drive holds data or parity must not follow from the order of seats, so that is turned by partition.
        """
        caps = [int(target * LOAD_CAP) + 1 for target in self.targets]
        seats = list(self.sitting)
        columns = [[draw / (DRAW_RANGE - draw) * self.odds[i] for draw in self.draws[i]] for i in seats]
        for partition, ranks in enumerate(zip(*columns, strict=True)):
            ranked = list(zip(ranks, seats, strict=True))
            near = sorted([pair for pair in ranked if pair[0] < RANK_NEAR])
            chosen = self._choose(near, caps)
            if len(chosen) < self.width:
                chosen = self._choose(sorted(ranked), caps)
            for i in chosen:
                self.loads[i] += 1
            chosen.sort()
            turn = partition % len(chosen) if chosen else 0
            self.homes[partition] = chosen[turn:] + chosen[:turn] + [NOBODY] * (self.width - len(chosen))

    def _choose(self, ranked: Sequence[tuple[float, int]], caps: Sequence[int]) -> list[int]:
        """The first of these seats that have room and fit, up to the width."""
        chosen: list[int] = []
        for _, i in ranked:
            if self.loads[i] < caps[i] and self._fits(chosen, i):
                chosen.append(i)
                if len(chosen) == self.width:
                    break
        return chosen

    def _vacate(self) -> None:
        """Empty the positions of seats that nobody sits in, and of the fullest where a bound has become tighter."""
        bounds_are_loose = min(self.per_node, self.per_zone) >= self.width
        for homes in self.homes:
            for position, i in enumerate(homes):
                if i != NOBODY and i not in self.sitting:
                    self._move(homes, position, NOBODY)
            if bounds_are_loose:
                continue
            for position in sorted(range(self.width), key=lambda at: self._excess(homes[at]), reverse=True):
                i = homes[position]
                if i != NOBODY and not self._fits(homes[:position] + homes[position + 1 :], i):
                    self._move(homes, position, NOBODY)

    def _fill(self) -> None:
        """Give each empty position to the best by rank that is below its share, else to the emptiest, that fits."""
        for partition, homes in enumerate(self.homes):
            while NOBODY in homes:
                fitting = [i for i in self.sitting if self._fits(homes, i)]
                if not fitting:
                    _close_gaps(homes)
                    break
                needy = [i for i in fitting if self._excess(i) < 0]
                if needy:
                    heir = min(needy, key=lambda i: (self._rank(i, partition), i))
                else:
                    heir = min(fitting, key=lambda i: (self._excess(i), i))
                self._move(homes, homes.index(NOBODY), heir)

    def _claim(self, seat: int) -> None:
        """Let a seat that is below its share take positions from those above theirs, the lowest draws first."""
        wanted = int(self.targets[seat] * LOAD_CLAIM) - self.loads[seat]
        if wanted <= 0:
            return
        loads, targets = self.loads, self.targets
        for partition in sorted(range(PARTITIONS), key=self.draws[seat].__getitem__):
            homes = self.homes[partition]
            if seat in homes:
                continue
            above = [
                (loads[i] - targets[i], -at) for at, i in enumerate(homes) if i != NOBODY and loads[i] >= targets[i] + 1
            ]
            for _, at in sorted(above, reverse=True):
                position = -at
                if self._fits(homes[:position] + homes[position + 1 :], seat):
                    self._move(homes, position, seat)
                    wanted -= 1
                    break
            if not wanted:
                return

    def _excess(self, i: int) -> float:
        """Positions above the drive's share."""
        return 0.0 if i == NOBODY else self.loads[i] - self.targets[i]

    def _rank(self, i: int, partition: int) -> float:
        draw = self.draws[i][partition]
        return draw / (DRAW_RANGE - draw) * self.odds[i]

    def _move(self, homes: list[int], position: int, seat: int) -> None:
        if homes[position] != NOBODY:
            self.loads[homes[position]] -= 1
        if seat != NOBODY:
            self.loads[seat] += 1
        homes[position] = seat

    def _fits(self, homes: Sequence[int], seat: int) -> bool:
        """Whether a seat may join these homes: it is not among them, its node and zone are below their bounds."""
        if seat in homes:
            return False
        nodes = self.nodes
        node = nodes[seat]
        in_node = in_zone = 0
        for i in homes:
            if i != NOBODY and nodes[i][0] == node[0]:
                in_zone += 1
                in_node += nodes[i] == node
        return in_node < self.per_node and in_zone < self.per_zone


def _close_gaps(homes: list[int]) -> None:
    """Move the last ones into positions that stay empty: it is the last fragments that have no home."""
    gaps = [position for position, i in enumerate(homes) if i == NOBODY]
    filled = len(homes) - len(gaps)
    last = [i for i in homes[filled:] if i != NOBODY]
    for position, i in zip(gaps, last, strict=False):
        homes[position] = i
    homes[filled:] = [NOBODY] * len(gaps)


def _was_active(drive: LayoutDrive, version: int) -> bool:
    return drive.since <= version and (not drive.until or version < drive.until)


def _draws(seat: bytes) -> list[int]:
    """One number below DRAW_RANGE per partition: little-endian words of BLAKE3's extended output."""
    draws = array("I")
    assert draws.itemsize == DRAW_BYTES
    draws.frombytes(blake3(seat, key=DRAW_KEY).digest(length=DRAW_BYTES * PARTITIONS))
    if sys.byteorder == "big":
        draws.byteswap()
    return draws.tolist()
