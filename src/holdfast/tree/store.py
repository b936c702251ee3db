"""What a tree asks of whoever keeps its blocks. The composition root binds codes, tags and the cluster behind it."""

from typing import Protocol

from holdfast.core.ids import Buffer
from holdfast.erasure import BlockRef, CodedBlock

# Fifty-six bits of plain bytes are 64 PiB: a thousand times the largest object.
SIZE_BITS = 56
SIZE_MAX_BYTES = 2**SIZE_BITS - 1


class BlockStore(Protocol):
    """Keeps sealed blocks.

    `encode` and `put` are apart so that a block is compressed, sealed, coded and hashed in one visit to a thread.
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

    async def get(self, ref: BlockRef) -> Buffer:
        """The sealed block, `ref.length` bytes, checked against `ref.id`. Raises NotFound, Corrupt, Unavailable."""
        ...


def make_position(level: int, start: int) -> int:
    """Where a block hangs, in 64 bits: its level (0 for data) and the first plain byte below it."""
    assert 0 <= level < 256
    assert 0 <= start <= SIZE_MAX_BYTES
    return level << SIZE_BITS | start


def split_position(position: int) -> tuple[int, int]:
    """Level and start."""
    return position >> SIZE_BITS, position & SIZE_MAX_BYTES
