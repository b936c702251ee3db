"""Pooled buffers for what is read: fresh memory is the dearest thing on a virtual machine.

Rules. A buffer's size is a power of two. `take` and `give` are a pair; a `lend` comes back by itself, when the last
view of it is gone. The pool keeps `idle_max_bytes` of returned buffers, of the sizes that were asked for last. It
bounds what is kept, not what is in use.
"""

import ctypes
import mmap
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable

from holdfast.core.limits import KIB, MIB

# Below it the system allocator does as well: no page of its own is mapped and unmapped.
POOLED_MIN_BYTES = 64 * KIB

# The reads of sixteen blocks of 1 MiB in 4+2 at once.
IDLE_MAX_BYTES = 32 * MIB


class BufferPool:
    """Buffers of one process. Safe to use from any thread."""

    def __init__(self, *, idle_max_bytes: int = IDLE_MAX_BYTES) -> None:
        self._idle_max_bytes = idle_max_bytes
        self._idle_bytes = 0
        self._idle: OrderedDict[int, list[mmap.mmap]] = OrderedDict()
        """By size; the size that was used last comes last."""
        # Re-entrant: the garbage collector may return a lent buffer while this thread holds the lock.
        self._lock = threading.RLock()
        self._lent: dict[int, tuple[object, mmap.mmap]] = {}

    def take(self, length: int) -> mmap.mmap:
        """A page-aligned buffer of at least `length` bytes, with whatever its last user left in it."""
        size = 1 << (max(length, POOLED_MIN_BYTES) - 1).bit_length()
        with self._lock:
            idle = self._idle.setdefault(size, [])
            self._idle.move_to_end(size)
            if idle:
                self._idle_bytes -= size
                return idle.pop()
        return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

    def give(self, buffer: mmap.mmap) -> None:
        """Return a buffer that nobody looks at any more."""
        size = len(buffer)
        with self._lock:
            self._idle.setdefault(size, []).append(buffer)
            self._idle_bytes += size
            while self._idle_bytes > self._idle_max_bytes:
                oldest, idle = next(iter(self._idle.items()))
                if idle:
                    idle.pop()
                    self._idle_bytes -= oldest
                else:
                    del self._idle[oldest]

    def lend(self, length: int) -> memoryview:
        """A writable view of `length` bytes that returns to the pool once no view of it is left."""
        if length < POOLED_MIN_BYTES:
            return memoryview(bytearray(length))
        buffer = self.take(length)
        # Slices of a view refer to what it was made from, not to the view: so that is what is watched.
        exporter = (ctypes.c_ubyte * length).from_buffer(buffer)
        with self._lock:
            self._lent[id(exporter)] = (weakref.ref(exporter, self._returner(id(exporter))), buffer)
        return memoryview(exporter).cast("B")

    def _returner(self, number: int) -> Callable[[object], None]:
        def give_back(_: object) -> None:
            with self._lock:
                _, buffer = self._lent.pop(number)
            self.give(buffer)

        return give_back
