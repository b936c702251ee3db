"""Uploads that were begun on this machine and not completed: what a second run of the same command goes on with.

One small JSON file for each, in $XDG_STATE_HOME/holdfast/uploads, named by endpoint, bucket, key and source. It says
which upload it was and what the file was like then; which parts the server has is the server's to say, and whether
they are right is checked against the file. A lock on it keeps two commands from working at one upload. Nothing in it
is secret. When the directory cannot be written, uploads simply start anew.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload, and what it was begun with; only for exactly the same it is gone on with."""

    upload_id: str
    size: int
    modified_ns: int
    inode: int
    part_bytes: int
    headers: dict[str, object]
    """What the object is created with: content type, metadata."""
    source: str = ""
    """The file, for people."""

    def is_of(self, other: "Begun") -> bool:
        return (self.size, self.modified_ns, self.inode, self.part_bytes, self.headers) == (
            other.size, other.modified_ns, other.inode, other.part_bytes, other.headers
        )  # fmt: skip


class Note:
    """The locked file of one upload. Without a file (somebody has it, or no directory) it remembers nothing."""

    def __init__(self, path: Path | None, descriptor: int | None) -> None:
        self._path = path
        self._descriptor = descriptor

    def read(self) -> Begun | None:
        if self._descriptor is None:
            return None
        try:
            document = json.loads(os.pread(self._descriptor, 1 << 20, 0))
            if document.pop("format", None) != _FORMAT:
                return None
            return Begun(**document)
        except (ValueError, TypeError, AttributeError, OSError):
            return None  # cut off while it was written: the upload is not gone on with

    def write(self, begun: Begun) -> None:
        if self._descriptor is None:
            return
        data = json.dumps({"format": _FORMAT, **asdict(begun)}).encode()
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, data, 0)
        except OSError:
            pass  # the upload goes on, and would start anew after an interruption

    def forget(self) -> None:
        if self._path is not None:
            self._path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Known:
    """A note of this machine, as it lies there."""

    path: Path
    begun: Begun
    is_locked: bool
    """Whether a command is working at it now."""


def known(directory: Path) -> dict[str, Known]:
    """The notes of this machine by upload id.

    Each is locked for a moment, to see whether it is: a command that wants it in that moment begins its upload anew.
    """
    found: dict[str, Known] = {}
    for path in directory.glob("*.json"):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            begun = Note(path, descriptor).read()
            if begun is not None:
                found[begun.upload_id] = Known(path, begun, _is_locked(descriptor))
        finally:
            os.close(descriptor)
    return found


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def default_directory(environment: dict[str, str]) -> Path:
    base = environment.get("XDG_STATE_HOME", "")
    root = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return root / "holdfast" / "uploads"


@contextmanager
def note_of(directory: Path, *identity: str) -> Iterator[Note]:
    """The note of one upload, locked meanwhile."""
    name = hashlib.sha256("\0".join(identity).encode("utf-8", "surrogateescape")).hexdigest()[:32] + ".json"
    path = directory / name
    descriptor: int | None = None
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:
            raise BlockingIOError(errno.EAGAIN, "its holder has just finished")
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        yield Note(None, None)
        return
    try:
        yield Note(path, descriptor)
    finally:
        os.close(descriptor)
