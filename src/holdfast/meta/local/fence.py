"""The fence: a file on every drive that says which run has it open.

Processes that do not share the run directory do not share its lock either, and two logs would grow. Each run has a
random identity; whoever opens a drive while nobody else has it open writes its run's there, and everyone holds a
shared lock on the file for as long as it lives. The lock goes with the process, so nothing is left to clean up.

A fence whose drive was overwritten says nothing: whoever comes is let in, and the fences of the other drives decide.
"""

from pathlib import Path

from blake3 import blake3

from holdfast.core.disk import Disk, File
from holdfast.core.errors import Unavailable

FILE_NAME = "run"

# Tells a mark from bytes that are none.
_CHECKSUM_BYTES = 16


def raise_fence(disk: Disk, path: Path, identity: bytes) -> File | None:
    """Hold the drive whose metadata directory is `path` for a run; the file to keep open, None if it has none.

    Raises Unavailable when another run has the drive open.
    """
    try:
        fence = disk.open(path / FILE_NAME, create=True)
    except OSError:
        # No such drive: whether it is needed, the witnesses say.
        return None
    if not _is_ours(fence, identity):
        fence.close()
        raise Unavailable(
            f"{path} is open by processes that use another run directory: give every process of a store the same one"
        )
    return fence


def _is_ours(fence: File, identity: bytes) -> bool:
    """Whether no other run's mark is on a fence, now that it is held; unless others hold it, this run's is written."""
    try:
        fence.lock(exclusive=True)
        fence.write((_mark(identity),), 0)
    except BlockingIOError:
        pass
    try:
        fence.lock(exclusive=False)
    except BlockingIOError:
        return False
    there = bytearray(len(identity) + _CHECKSUM_BYTES)
    fence.read_into(memoryview(there), 0)
    found = bytes(there[: len(identity)])
    return found == identity or there != _mark(found)


def _mark(identity: bytes) -> bytes:
    return identity + blake3(identity).digest(_CHECKSUM_BYTES)
