"""Immutable block trees: build one from plain blocks, read a range, walk the blocks. docs/formats/tree.md.

    root entry ──R──> inner node ──keys──> inner node ──keys──> data block
                      (sealed under W = one-way of R)           (sealed under its own random key)

A node lists its children twice: the walk part (refs, ends, the walk keys of inner children) opens with the walk key W,
the read part (the children's keys) only with the read key R. So who holds W finds, repairs and deletes every block
and reads none; who holds R reads all. One entry names a tree of any size.

- `entry`    root entries, walk roots, links, and their wrapping
- `node`     inner nodes
- `store`    what a tree asks of whoever keeps its blocks, and positions
- `threads`  where sealing runs
- `fetching` inner nodes out of a store
- `writer`   blocks in order to a root entry
- `reader`   a root entry and a range to bytes
- `walker`   a walk root to the refs of all blocks
"""

from holdfast.tree.entry import (
    Link,
    RootEntry,
    WalkRoot,
    decode_link,
    decode_root,
    decode_walk_root,
    encode_link,
    encode_root,
    encode_walk_root,
    unwrap_root,
    unwrap_walk_root,
    wrap_root,
    wrap_walk_root,
)
from holdfast.tree.reader import Extent, read, read_extents
from holdfast.tree.store import BlockStore, make_position, split_position
from holdfast.tree.threads import SealingThreads
from holdfast.tree.walker import WalkedBlock, locate, walk
from holdfast.tree.writer import TreeWriter

__all__ = [
    "BlockStore",
    "Extent",
    "Link",
    "RootEntry",
    "SealingThreads",
    "TreeWriter",
    "WalkRoot",
    "WalkedBlock",
    "decode_link",
    "decode_root",
    "decode_walk_root",
    "encode_link",
    "encode_root",
    "encode_walk_root",
    "locate",
    "make_position",
    "read",
    "read_extents",
    "split_position",
    "unwrap_root",
    "unwrap_walk_root",
    "walk",
    "wrap_root",
    "wrap_walk_root",
]
