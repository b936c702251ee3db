"""Layout to partition table to ordered drives, and the moves between two layouts. Pure: a function of its arguments."""

from holdfast.placement.layout import (
    Layout,
    LayoutDrive,
    State,
    add,
    decode_layout,
    encode_layout,
    first_layout,
    replace_drive,
    restore,
    retire,
)
from holdfast.placement.table import Move, PartitionTable, moves, partition_of, partition_table

__all__ = [
    "Layout",
    "LayoutDrive",
    "Move",
    "PartitionTable",
    "State",
    "add",
    "decode_layout",
    "encode_layout",
    "first_layout",
    "moves",
    "partition_of",
    "partition_table",
    "replace_drive",
    "restore",
    "retire",
]
