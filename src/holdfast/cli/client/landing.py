"""Where keys land on a local file system: inside the target directory, whole or not at all.

Rules.

- A key becomes a path component by component. What could leave the directory, or means something else to a file
  system than to S3 ("..", ".", an empty component, a NUL), is refused, never rewritten.
- A symbolic link on the way to a file is refused: it could lead anywhere. One in the file's own place is replaced.
- A file appears under its name by a rename, when every byte of it was checked. Until then it lies beside, under a
  name that begins with a dot and ends in PART_SUFFIX.
"""

import errno
import hashlib
import os
import threading
from pathlib import Path

from holdfast.core.errors import AccessDenied, AlreadyExists, Full, HoldfastError, InvalidName, NotFound, Unavailable

PART_SUFFIX = ".holdfast-part"

# Linux: a name of a file is this long at most, in bytes.
NAME_MAX_BYTES = 255

# Of the file's own name in that of its part file, so that people recognise it and it stays short.
_NAME_SHOWN_CHARS = 40


class InTheWay(AlreadyExists):
    """A file is where a directory must be, or the other way round: S3 has both "a" and "a/b", a file system has not."""


def relative_parts(relative: str) -> tuple[str, ...]:
    """The components of a key below the target. Raises InvalidName for what no file system can hold as it is."""
    parts = tuple(relative.split("/"))
    for part in parts:
        if part in ("", ".", ".."):
            raise InvalidName(
                f"the key {relative!r} would not be a file inside the target: fetch it alone, under a name of your own"
            )
        if "\0" in part:
            raise InvalidName(f"the key {relative!r} holds a NUL, which no file's name can")
        if len(os.fsencode(part)) > NAME_MAX_BYTES:
            raise InvalidName(f"the key {relative!r} has a component of more than {NAME_MAX_BYTES} bytes")
    return parts


def is_part_file(name: str) -> bool:
    """Whether it is a download that was not finished, which no upload takes along."""
    return name.startswith(".") and name.endswith(PART_SUFFIX)


def part_path(target: Path, identity: str) -> Path:
    """Where `target` lies until it is whole. Another `identity` (ETag and so on) is another file."""
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return target.with_name(f".{_shown(target)}.{digest}{PART_SUFFIX}")


def stale_parts(target: Path) -> list[Path]:
    """Part files of the same target, from whatever it was before."""
    start = f".{_shown(target)}."
    try:
        names = [path.name for path in target.parent.iterdir()]
    except OSError:
        return []
    return [
        target.with_name(name)
        for name in names
        if name.startswith(start) and len(name) == len(start) + 16 + len(PART_SUFFIX) and is_part_file(name)
    ]


def _shown(target: Path) -> str:
    name = target.name
    if len(name) <= _NAME_SHOWN_CHARS and len(os.fsencode(name)) <= 4 * _NAME_SHOWN_CHARS:
        return name
    # The hash keeps the beginnings of two long names apart.
    return name[:_NAME_SHOWN_CHARS] + "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:8]


class Landing:
    """A directory that objects are written into. Safe from several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._ready: set[Path] = set()

    def place(self, relative: str) -> Path:
        """The path for a key, with its directories made. Raises InvalidName, InTheWay, AccessDenied, Unavailable."""
        parts = relative_parts(relative)
        directory = self.root.joinpath(*parts[:-1])
        with self._lock:
            self._make(parts[:-1], directory)
        return directory / parts[-1]

    def _make(self, parts: tuple[str, ...], directory: Path) -> None:
        if directory in self._ready:
            return
        at = self.root
        try:
            if self.root not in self._ready:
                self.root.mkdir(parents=True, exist_ok=True)
                self._ready.add(self.root)
            for part in parts:
                at = at / part
                if at in self._ready:
                    continue
                if at.is_symlink():
                    raise InTheWay(f"{at} is a symbolic link, which is not followed: remove it, or name its target")
                at.mkdir(exist_ok=True)
                self._ready.add(at)
        except (FileExistsError, NotADirectoryError):
            raise InTheWay(f"{at} is a file, and must be a directory for {directory}: move it away") from None
        except OSError as error:
            raise local_error(error, at) from error


def local_error(error: OSError, path: Path | str) -> HoldfastError:
    """What went wrong on this machine, with its cause and what to do."""
    said = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        return NotFound(f"{path}: no such file or directory")
    if isinstance(error, IsADirectoryError | NotADirectoryError):
        return InTheWay(f"{path}: {said.lower()}: move it away")
    if isinstance(error, PermissionError):
        return AccessDenied(f"{path}: permission denied to this user: see `ls -ld` of it and of its directory")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(f"{path}: {said.lower()}: make room, then give the same command again")
    if error.errno == errno.ENAMETOOLONG:
        return InvalidName(f"{path}: the file system does not take a name as long")
    return Unavailable(f"{path}: {said}")
