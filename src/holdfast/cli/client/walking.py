"""The files of a directory, in the order in which S3 lists keys.

Links and whatever is neither file nor directory are left out and told; with `follow`, links are taken for what they
lead to, but never into a directory that is being walked already. Part files of downloads are not taken along.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from holdfast.cli.client.landing import is_part_file, local_error
from holdfast.core.errors import HoldfastError, InvalidName


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below a directory."""

    relative: str
    """Its components joined by slashes: what its key ends in."""
    path: Path
    size: int
    modified_ns: int


def walk(
    root: Path, *, follow: bool, left_out: Callable[[str], None], failed: Callable[[HoldfastError], None]
) -> Iterator[LocalFile]:
    """Every file below `root`. Of a directory that cannot be read `failed` is told, and the rest goes on.

    Raises NotFound or InTheWay when `root` itself is no directory that can be read.
    """
    try:
        status = root.stat()
        next(root.iterdir(), None)
    except OSError as error:
        raise local_error(error, root) from error
    yield from _Walker(follow, left_out, failed).below(root, "", ((status.st_dev, status.st_ino),))


class _Walker:
    def __init__(self, follow: bool, left_out: Callable[[str], None], failed: Callable[[HoldfastError], None]) -> None:
        self._follow = follow
        self._left_out = left_out
        self._failed = failed

    def below(self, directory: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[LocalFile]:
        try:
            entries = list(os.scandir(directory))
        except OSError as error:
            self._failed(local_error(error, directory))
            return
        found = []
        for entry in entries:
            try:
                name = entry.name.encode().decode()
            except UnicodeEncodeError:
                self._failed(InvalidName(f"{directory / entry.name}: the name is not UTF-8, which keys must be"))
                continue
            try:
                status = self._status(entry)
            except OSError as error:
                self._failed(local_error(error, entry.path))
                continue
            if status is not None:
                slash = "/" if stat.S_ISDIR(status.st_mode) else ""
                found.append(((name + slash).encode(), name, entry, status))
        for _, name, entry, status in sorted(found, key=lambda one: one[0]):
            if not stat.S_ISDIR(status.st_mode):
                yield LocalFile(prefix + name, Path(entry.path), status.st_size, status.st_mtime_ns)
                continue
            place = (status.st_dev, status.st_ino)
            if place in above:
                self._left_out(f"{entry.path}: a link into a directory above it")
            else:
                yield from self.below(Path(entry.path), f"{prefix}{name}/", (*above, place))

    def _status(self, entry: os.DirEntry[str]) -> os.stat_result | None:
        """Of what is to be taken; None for what is left out."""
        if entry.is_symlink() and not self._follow:
            self._left_out(f"{entry.path}: a symbolic link (--follow takes what it leads to)")
            return None
        status = entry.stat(follow_symlinks=self._follow)
        if stat.S_ISDIR(status.st_mode):
            return status
        if not stat.S_ISREG(status.st_mode):
            self._left_out(f"{entry.path}: neither a file nor a directory")
            return None
        return None if is_part_file(entry.name) else status
