"""The memory through which commits go to the disk: page-aligned, as O_DIRECT wants it, and used again for every commit.

Fresh memory is the dearest thing on a virtual machine: with a buffer for each commit, page faults were a twelfth of
what an upload costs. So a drive's writer has one piece of memory for good, and what is longer goes in several writes.
"""

import mmap
from collections.abc import Iterable, Iterator

from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB
from holdfast.drives.records import PAGE_BYTES

# Four fragments of a block of 2 MiB in 4+2, or a copy of it, go in one write.
SLAB_BYTES = 2304 * KIB


class Slab:
    """One piece of memory. For one thread."""

    def __init__(self, length: int = SLAB_BYTES) -> None:
        assert length % PAGE_BYTES == 0
        self._view = memoryview(mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

    def pieces(self, buffers: Iterable[Buffer]) -> Iterator[memoryview]:
        """What `buffers` hold, one after the other, in as few aligned pieces as fit; each is good until the next."""
        slab, filled = self._view, 0
        for buffer in buffers:
            rest = memoryview(buffer)
            while len(rest) > len(slab) - filled:
                room = len(slab) - filled
                slab[filled:] = rest[:room]
                yield slab
                rest, filled = rest[room:], 0
            slab[filled : filled + len(rest)] = rest
            filled += len(rest)
        if filled:
            yield slab[:filled]
