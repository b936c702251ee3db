"""A walk root to the refs of every block below it: for repair, fsck and deletion, without a key that reads.

Order: children before their parent, data blocks by their place in the content, always the same. So who deletes along
the walk and is stopped can walk again: what names the rest is still there.
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from msgspec import Struct
from msgspec.structs import replace

from holdfast.core.errors import HoldfastError, NotFound
from holdfast.erasure import BlockRef
from holdfast.tree.entry import WalkRoot
from holdfast.tree.fetching import fetch_node
from holdfast.tree.node import Node
from holdfast.tree.store import BlockStore, make_position, split_position
from holdfast.tree.threads import SealingThreads


class WalkedBlock(Struct, frozen=True):
    """A block of a tree."""

    ref: BlockRef
    position: int
    """As its tag says: `split_position` gives the level and the first plain byte."""
    length: int
    """Plain bytes below it."""
    unread: HoldfastError | None = None
    """For a node whose children could not be listed: why. They are missing from the walk."""
    whole: bool = True
    """Whether all that hangs below it was listed; not if it is `unread`, or any node below it is."""


@dataclass(slots=True)
class _Visit:
    """A node whose children are being walked."""

    block: WalkedBlock
    node: Node
    next: int = 0
    whole: bool = True


async def walk(store: BlockStore, threads: SealingThreads, root: WalkRoot) -> AsyncGenerator[WalkedBlock, None]:
    """Every block of a tree, inner nodes included. One node is fetched at a time; data blocks never are.

    A node that cannot be fetched or opened is yielded with `unread`, and the walk goes on beside it.
    """
    top = WalkedBlock(root.ref, make_position(root.depth, 0), root.size)
    if not root.depth:
        yield top
        return
    visits: list[_Visit] = []
    opened = await _open(store, threads, top, root.key)
    if isinstance(opened, WalkedBlock):
        yield opened
        return
    visits.append(_Visit(top, opened))
    while visits:
        visit = visits[-1]
        if visit.next == len(visit.node):
            visits.pop()
            if visits and not visit.whole:
                visits[-1].whole = False
            yield visit.block if visit.whole else replace(visit.block, whole=False)
            continue
        child = _child(visit.block, visit.node, visit.next)
        visit.next += 1
        if visit.node.level == 1:
            yield child
            continue
        opened = await _open(store, threads, child, visit.node.walk_key(visit.next - 1))
        if isinstance(opened, WalkedBlock):
            visit.whole = False
            yield opened
        else:
            visits.append(_Visit(child, opened))


async def locate(store: BlockStore, threads: SealingThreads, root: WalkRoot, position: int) -> BlockRef:
    """The block that hangs at `position`. Raises NotFound when none does; Corrupt, Unavailable from the way there."""
    level, start = split_position(position)
    block = WalkedBlock(root.ref, make_position(root.depth, 0), root.size)
    key = root.key
    for above in range(root.depth, level, -1):
        node = await _node(store, threads, block, key)
        offset = start - split_position(block.position)[1]
        if offset >= block.length:
            break
        index = node.covering(offset)
        block = _child(block, node, index)
        key = node.walk_key(index) if above > 1 else b""
    if block.position != position:
        raise NotFound("the tree has no block at that position")
    return block.ref


def _child(parent: WalkedBlock, node: Node, index: int) -> WalkedBlock:
    _, start = split_position(parent.position)
    return WalkedBlock(node.ref(index), make_position(node.level - 1, start + node.start(index)), node.length(index))


async def _open(store: BlockStore, threads: SealingThreads, block: WalkedBlock, key: bytes) -> Node | WalkedBlock:
    """The node at `block`, or `block` with the reason why not."""
    try:
        return await _node(store, threads, block, key)
    except HoldfastError as error:
        return replace(block, unread=error, whole=False)


async def _node(store: BlockStore, threads: SealingThreads, block: WalkedBlock, key: bytes) -> Node:
    level, _ = split_position(block.position)
    return await fetch_node(store, threads, block.ref, key, level=level, size=block.length)
