"""A root entry and a range to plain bytes, in order, with blocks fetched ahead.

Integrity comes from the tree alone: each block opens only under the key that its parent holds, with the length that
its parent gives. A store that swaps, cuts, replays or invents blocks makes a read raise Corrupt; it never makes it
return other bytes.

Memory: one block and, of what the process's budget has free, up to `ahead` more. However a read ends, no task is left
and what it took of the budget is back.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial

from msgspec import Struct

from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import Buffer
from holdfast.core.limits import BLOCK_MAX_BYTES, MIB
from holdfast.core.ranges import ByteRange
from holdfast.crypto.derive import KEY_BYTES
from holdfast.erasure import BlockRef
from holdfast.erasure.arena import SHARED
from holdfast.tree.entry import RootEntry, walk_key
from holdfast.tree.fetching import check_length, fetch_node
from holdfast.tree.node import Node
from holdfast.tree.store import BlockStore
from holdfast.tree.threads import SealingThreads

# Enough to keep the drives busy while one block is on its way to the client.
AHEAD_DEFAULT = 4

# Up to here a block is opened into bytes, which a server sends as they are; a longer one is more than a message, is cut
# for that, and thus goes through memory that is used again.
_BYTES_MAX_BYTES = MIB


class Extent(Struct, frozen=True):
    """`length` plain bytes of a tree, from `skip` on. Multipart objects are lists of these."""

    root: RootEntry
    skip: int
    length: int

    def __post_init__(self) -> None:
        if not 0 <= self.skip <= self.skip + self.length <= self.root.size:
            raise InvalidRequest(f"an extent of {self.length} bytes from {self.skip} in a tree of {self.root.size}")


@dataclass(frozen=True, slots=True)
class _Subtree:
    """What is wanted of a subtree: bytes `start` to `end`, counted from its first."""

    ref: BlockRef
    level: int
    length: int
    start: int
    end: int
    key: bytes = field(repr=False)


def read(
    store: BlockStore,
    threads: SealingThreads,
    root: RootEntry,
    range: ByteRange | None = None,
    *,
    ahead: int = AHEAD_DEFAULT,
) -> AsyncGenerator[Buffer, None]:
    """The plain bytes of a tree, or of a range of it, in order and in pieces of at most a block.

    A piece stays valid for as long as it is held. Raises InvalidRequest when the range reaches past the end, Corrupt
    and Unavailable. Close the iterator when leaving it early (`contextlib.aclosing`).
    """
    return read_extents(store, threads, (Extent(root, 0, root.size),), range, ahead=ahead)


async def read_extents(
    store: BlockStore,
    threads: SealingThreads,
    extents: Sequence[Extent],
    range: ByteRange | None = None,
    *,
    ahead: int = AHEAD_DEFAULT,
) -> AsyncGenerator[Buffer, None]:
    """As `read`, of many extents, one after the other, as if they were one tree. `range` counts through them."""
    wanted = _select(extents, range)
    if len(wanted) == 1 and wanted[0].level == 0:
        # The small object: one get, no task.
        yield await _load(store, threads, wanted[0])
        return
    loading: deque[asyncio.Task[Buffer]] = deque()
    budget = threads.blocks
    taken: deque[int] = deque()
    leaves = _leaves(store, threads, wanted)
    try:
        leaf = await anext(leaves, None)
        while leaf is not None or loading:
            # What is here and what the caller looks at come to the blocks of `taken` and one.
            while leaf is not None and len(loading) <= ahead and (not loading or budget.try_ahead(leaf.length)):
                if loading:
                    taken.append(leaf.length)
                loading.append(asyncio.create_task(_load(store, threads, leaf)))
                leaf = await anext(leaves, None)
            # It stays in the queue until it is done, so that whatever ends us ends it too.
            piece = await loading[0]
            loading.popleft()
            yield piece
            del piece
            if taken:
                budget.release_ahead(taken.popleft())
    finally:
        await leaves.aclose()
        for task in loading:
            task.cancel()
        await asyncio.gather(*loading, return_exceptions=True)
        for length in taken:
            budget.release_ahead(length)


def _select(extents: Sequence[Extent], range: ByteRange | None) -> list[_Subtree]:
    """The parts of the extents' trees that a range covers."""
    size = sum(extent.length for extent in extents)
    start, end = (0, size) if range is None else (range.start, range.end)
    if end > size:
        raise InvalidRequest(f"bytes {start} to {end} of {size}")
    wanted = []
    at = 0
    for extent in extents:
        first, last = max(start, at), min(end, at + extent.length)
        if first < last:
            shift = extent.skip - at
            root = extent.root
            wanted.append(_Subtree(root.ref, root.depth, root.size, first + shift, last + shift, root.key))
        at += extent.length
    return wanted


async def _leaves(
    store: BlockStore, threads: SealingThreads, wanted: Sequence[_Subtree]
) -> AsyncGenerator[_Subtree, None]:
    """The data blocks of subtrees, in order. Nodes are opened as they are reached: one for each 1,024 blocks."""
    stack = list(reversed(wanted))
    while stack:
        subtree = stack.pop()
        if subtree.level == 0:
            yield subtree
            continue
        key = walk_key(subtree.key)
        node = await fetch_node(store, threads, subtree.ref, key, level=subtree.level, size=subtree.length)
        stack.extend(reversed(_children(node, subtree)))


def _children(node: Node, subtree: _Subtree) -> list[_Subtree]:
    keys = node.keys(subtree.key)
    first, last = node.covering(subtree.start), node.covering(subtree.end - 1)
    children = []
    for index in range(first, last + 1):
        offset, length = node.start(index), node.length(index)
        start, end = max(0, subtree.start - offset), min(length, subtree.end - offset)
        key = keys[index * KEY_BYTES : (index + 1) * KEY_BYTES]
        children.append(_Subtree(node.ref(index), subtree.level - 1, length, start, end, key))
    return children


async def _load(store: BlockStore, threads: SealingThreads, leaf: _Subtree) -> Buffer:
    if leaf.length > BLOCK_MAX_BYTES:
        raise Corrupt(f"a data block of {leaf.length} bytes")
    return await store.get(leaf.ref, partial(_open, threads, leaf))


def _open(threads: SealingThreads, leaf: _Subtree, sealed: Buffer) -> Buffer:
    check_length(leaf.ref, sealed)
    if leaf.length <= _BYTES_MAX_BYTES:
        plain = threads.sealer().open(leaf.key, sealed, leaf.length)
        return plain if leaf.end - leaf.start == leaf.length else memoryview(plain)[leaf.start : leaf.end]
    out = SHARED.take(leaf.length)
    threads.sealer().open_into(leaf.key, sealed, leaf.length, out)
    return out[leaf.start : leaf.end]
