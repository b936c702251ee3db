"""`--sync relaxed`: a disk whose files do not wait to be on stable storage.

The kernel writes them out by itself, within half a minute as a rule. A killed process loses nothing; a power cut or a
crash of the machine may lose what was acknowledged since, and nothing that is read afterwards is wrong: records are
checksummed and chained, so what is torn is dropped. Small files that say who is who (identities, witnesses) are synced
all the same: losing one of them could cost more than the last seconds.
"""

from collections.abc import Sequence
from pathlib import Path

from holdfast.core.disk import Disk, File, Space
from holdfast.core.ids import Buffer


class _RelaxedFile:
    """`core.disk.File` over another, whose `sync` returns at once."""

    def __init__(self, file: File) -> None:
        self._file = file
        self.read_into = file.read_into
        self.read_cached_into = file.read_cached_into
        self.allocate = file.allocate
        self.truncate = file.truncate
        self.size = file.size
        self.lock = file.lock
        self.unlock = file.unlock
        self.is_at = file.is_at
        self.close = file.close

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        self._file.write(buffers, offset)

    def sync(self) -> None:
        """Nothing: that is what relaxed means."""


class RelaxedDisk:
    """`core.disk.Disk` over another, whose files are relaxed."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self.read_file = disk.read_file
        self.replace_file = disk.replace_file
        self.list_directory = disk.list_directory
        self.make_directory = disk.make_directory
        self.rename = disk.rename
        self.unlink = disk.unlink
        self.sync_directory = disk.sync_directory
        self.exists = disk.exists
        self.mount = disk.mount
        self.kind = disk.kind

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        return _RelaxedFile(self._disk.open(path, create=create, exclusive=exclusive, direct=direct))

    def space(self, path: Path) -> Space:
        return self._disk.space(path)
