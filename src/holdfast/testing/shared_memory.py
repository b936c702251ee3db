"""What tests keep in memory, in /dev/shm: one directory for each run of them.

Whoever is killed leaves things behind, and memory is not cleared like /tmp. So a run holds a lock on its directory for
as long as its first process lives; the next run removes directories whose lock is free, and touches nothing else.
"""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path("/dev/shm")  # noqa: S108  whether it is there is looked at
PREFIX = "holdfast-tests-"

VARIABLE = "TESTS_IN_MEMORY"
"""The environment variable that tells the directory to the processes of a run."""

_LOCK = "lock"

# A directory without a lock may be one that is being made.
_MADE_WITHIN_SECONDS = 3600.0


class TestRun:
    """One run's directory. Only its first process makes one."""

    __test__ = False  # for pytest, which goes by names

    def __init__(self, root: Path = ROOT) -> None:
        """Make it, and clear what dead runs left."""
        clear_dead(root)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
        # Not inherited by children: a server that outlives the run does not keep the directory.
        self._lock = os.open(self.path / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def clear_dead(root: Path = ROOT) -> None:
    """Remove the directories of runs that are over."""
    for path in root.glob(f"{PREFIX}*"):
        with suppress(OSError):
            if not (path / _LOCK).exists():
                if time.time() - path.stat().st_mtime > _MADE_WITHIN_SECONDS:  # noqa: TID251  of a directory of another
                    shutil.rmtree(path, ignore_errors=True)
                continue
            lock = os.open(path / _LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def in_memory(name: str) -> Path:
    """A new directory in memory, inside of the run's if there is one; in the ordinary place where there is no such
    memory. Whoever asks removes it."""
    run = os.environ.get(VARIABLE)
    if run is not None and Path(run).is_dir():
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=run))
    return Path(tempfile.mkdtemp(prefix=f"holdfast-{name}-", dir=ROOT if ROOT.is_dir() else None))
