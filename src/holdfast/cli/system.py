"""The real clock and the real chance: the only place where they are made."""

import asyncio
import ctypes
import os
import resource
import time

from holdfast.core.limits import MIB

# malloc gives blocks above its threshold back to the kernel and faults them in anew for the next: 10 us a page on a
# virtual machine, more than all else that is done with them. mallopt's numbers are from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_KEPT_BYTES = 64 * MIB

# Some programs that we may start walk through all descriptors that they could have.
_FILES_COUNT = 65_536


class SystemClock:
    """`core.clock.Clock` of this machine."""

    def now_ns(self) -> int:
        return time.time_ns()  # noqa: TID251

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class SystemRandomness:
    """`core.clock.Randomness` of this machine's kernel."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)  # noqa: TID251


def keep_freed_memory(most_bytes: int = _KEPT_BYTES) -> None:
    """Have malloc keep what is freed, up to so much, instead of mapping it anew. No effect without glibc.

    And keep it in one place: a heap for each thread would keep as much for each, and our threads hold the
    interpreter's lock when they allocate anyway.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, most_bytes // 2)
        mallopt(_M_TRIM_THRESHOLD, most_bytes)
        mallopt(_M_ARENA_MAX, 1)


def allow_many_files() -> None:
    """Let this process open more files: a drive keeps up to 128 segments open, beside the connections.

    What is allowed without asking is often 1,024, for the sake of programs that wait with select().
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_COUNT if most == resource.RLIM_INFINITY else min(most, _FILES_COUNT)
    if now != resource.RLIM_INFINITY and now < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
