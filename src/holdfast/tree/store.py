"""What a tree asks of whoever keeps its blocks. The composition root binds codes, tags and the cluster behind it."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from holdfast.core.ids import Buffer
from holdfast.erasure import BlockRef, CodedBlock

# Fifty-six bits of plain bytes are 64 PiB: a thousand times the largest object.
SIZE_BITS = 56
SIZE_MAX_BYTES = 2**SIZE_BITS - 1


T = TypeVar("T")


class BlockStore(Protocol):
    """Keeps sealed blocks.

    `encode` and `put` are apart so that a block is compressed, sealed, coded and hashed in one visit to a thread, and
    `get` takes what is to be done with the block so that it is checked, joined and opened in one.
    """

    def encode(self, sealed: Buffer) -> CodedBlock:
        """Code and hash a sealed block. Blocks; called from threads; may return views of `sealed`."""
        ...

    async def put(self, block: CodedBlock, position: int) -> None:
        """Store a block of the content that this store was made for; durable, to the code's quorum, on return.

        `position` says where in the tree it hangs (`make_position`): the block's tag carries it. A cancelled call may
        or may not have stored the block.
        """
        ...

    async def get(self, ref: BlockRef, then: Callable[[Buffer], T]) -> T:
        """`then` of the sealed block, `ref.length` bytes, checked against `ref.id`.

        `then` is called in the thread in which the block was joined, or on the event loop when it is small. Raises
        Corrupt, Unavailable (also of a block that nobody knows: no proof that it is gone), and what `then` raises.
        """
        ...


def make_position(level: int, start: int) -> int:
    """Where a block hangs, in 64 bits: its level (0 for data) and the first plain byte below it."""
    assert 0 <= level < 256
    assert 0 <= start <= SIZE_MAX_BYTES
    return level << SIZE_BITS | start


def split_position(position: int) -> tuple[int, int]:
    """Level and start."""
    return position >> SIZE_BITS, position & SIZE_MAX_BYTES
