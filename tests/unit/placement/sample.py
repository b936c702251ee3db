"""Groups of drives to place over: the same on every machine."""

from collections import Counter

from blake3 import blake3

from holdfast.core.ids import DriveId
from holdfast.placement import Layout, LayoutDrive, PartitionTable
from holdfast.placement.shares import fair_shares
from holdfast.placement.table import PARTITIONS

TERABYTE = 10**12


def drive(number: int, weight: int = 1, node: str = "n", zone: str = "") -> LayoutDrive:
    """Weight in terabytes."""
    return LayoutDrive(DriveId(blake3(f"drive {number}".encode()).digest()[:16]), weight * TERABYTE, node, zone)


def mixed(count: int, per_node: int | None = None, per_zone: int | None = None, seed: int = 0) -> list[LayoutDrive]:
    """Drives of 1, 2 and 4 TB in no order; `per_node` to a node (else all on one), `per_zone` to a zone."""
    pattern = blake3(f"weights {seed}".encode()).digest(length=count)
    return [
        drive(
            1000 * seed + i,
            (1, 2, 4)[pattern[i] % 3],
            f"n{i // per_node}" if per_node else "n",
            f"z{i // per_zone}" if per_zone else "",
        )
        for i in range(count)
    ]


def fair(layout: Layout, width: int) -> dict[DriveId, float]:
    """Positions that each active drive should hold."""
    shares = fair_shares(layout.active, min(width, len(layout.active))).expected
    return {entry.id: share * PARTITIONS for entry, share in zip(layout.active, shares, strict=True)}


def held(table: PartitionTable) -> Counter[DriveId]:
    """Positions that each drive holds."""
    return Counter(home for order in table.orders for home in order[: table.width])
