"""Large buffers that are used again, because fresh memory costs more than the work done in it.

A buffer comes back by itself: `take` hands out a view of a kept mapping, and a mapping is handed out again once
nobody holds any view of it, however sliced. CPython's reference count of the mapping says so, since each view holds
one. Nobody returns anything, so nothing can be returned too early: a cancelled write whose thread still reads from
its payload keeps that payload's buffer out of the pool until the thread is done.

Safe from any thread: a mapping is looked at only by whoever popped it from its deque.
"""

import mmap
import sys
from collections import deque

from holdfast.core.limits import KIB, MIB

# Mappings are of whole multiples of this, so that blocks of nearly one size share them.
GRAIN_BYTES = 256 * KIB

# What the pool may keep per process, in use and idle: what the 32 blocks that a process may have in its pipelines take
# here, 2.25 MiB each, joined and opened, or sealed and parity. With half of that, four downloads of 64 MiB at once met
# 110 page faults a MiB; so they meet 4.
KEPT_MAX_BYTES = 72 * MIB


def _references_of_a_local() -> int:
    """What `getrefcount` answers for an object that one local variable holds: 2, or 1 since 3.14."""
    probe = object()
    return sys.getrefcount(probe)


IDLE_REFERENCES = _references_of_a_local()


class Arena:
    """A pool of mappings."""

    def __init__(self, kept_max_bytes: int = KEPT_MAX_BYTES) -> None:
        self._kept_max_bytes = kept_max_bytes
        self._kept: dict[int, deque[mmap.mmap]] = {}

    def take(self, length: int) -> memoryview:
        """A writable view of `length` bytes, page-aligned, content arbitrary, whose memory is free once it is gone."""
        size = -(-length // GRAIN_BYTES) * GRAIN_BYTES
        mappings = self._kept.setdefault(size, deque())
        for _ in range(len(mappings)):
            try:
                mapping = mappings.popleft()
            except IndexError:  # other threads hold them just now
                break
            idle = sys.getrefcount(mapping) == IDLE_REFERENCES
            view = memoryview(mapping)[:length] if idle else None
            mappings.append(mapping)
            if view is not None:
                return view
        mapping = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        # Two threads at once may overshoot by a mapping: the limit is for memory that lies idle, not for safety.
        if self._has_room(size):
            mappings.append(mapping)
        return memoryview(mapping)[:length]

    def keep_at_most(self, kept_max_bytes: int) -> None:
        """From now on. For a process in which few blocks are on their way."""
        self._kept_max_bytes = kept_max_bytes

    def kept_bytes(self) -> int:
        return sum(size * len(mappings) for size, mappings in list(self._kept.items()))

    def _has_room(self, size: int) -> bool:
        """Whether `size` bytes more may be kept, after giving up idle mappings of other sizes."""
        excess = self.kept_bytes() + size - self._kept_max_bytes
        for other, mappings in list(self._kept.items()):
            for _ in range(len(mappings)):
                if excess <= 0:
                    return True
                try:
                    mapping = mappings.popleft()
                except IndexError:
                    break
                if sys.getrefcount(mapping) == IDLE_REFERENCES:
                    excess -= other
                else:
                    mappings.append(mapping)
        return excess <= 0


SHARED = Arena()
"""The process's own: blocks of every request pass through it."""
