"""Inner nodes out of a store, for whoever reads and for whoever walks.

A node is opened in the visit that joined it, with the visiting thread's own sealer: a visit that was given up goes on
in its thread for as long as it takes, and a sealer serves one thread at a time.
"""

from functools import partial

from holdfast.core.errors import Corrupt
from holdfast.core.ids import Buffer
from holdfast.erasure import BlockRef
from holdfast.tree.node import Node, open_node
from holdfast.tree.store import BlockStore
from holdfast.tree.threads import SealingThreads


async def fetch_node(
    store: BlockStore, threads: SealingThreads, ref: BlockRef, walk_key: bytes, *, level: int, size: int
) -> Node:
    """The node at `ref`, of the level and with the plain bytes that its parent gives.

    Raises Corrupt, NotFound, Unavailable.
    """
    return await store.get(ref, partial(_open, threads, ref, walk_key, level, size))


def check_length(ref: BlockRef, sealed: Buffer) -> None:
    """Raises Corrupt when a store gave another length than `ref` has."""
    if len(sealed) != ref.length:
        raise Corrupt(f"a block of {len(sealed)} bytes where {ref.length} were stored")


def _open(threads: SealingThreads, ref: BlockRef, walk_key: bytes, level: int, size: int, sealed: Buffer) -> Node:
    check_length(ref, sealed)
    return open_node(threads.sealer(), walk_key, sealed, level=level, size=size)
