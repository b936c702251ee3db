"""`--sync relaxed`: a disk whose files do not wait to be on stable storage.

The kernel writes them out by itself, within half a minute as a rule. A killed process loses nothing; a power cut or a
crash of the machine may lose what was acknowledged since, and nothing that is read afterwards is wrong: records are
checksummed and chained, so what is torn is dropped. Small files that say who is who (identities, witnesses) are synced
all the same: losing one of them could cost more than the last seconds.
"""

from pathlib import Path

from holdfast.core.disk import DiskOver, File, FileOver


class _RelaxedFile(FileOver):
    """A file whose `sync` returns at once."""

    def sync(self) -> None:
        """Nothing: that is what relaxed means."""


class RelaxedDisk(DiskOver):
    """A disk whose files are relaxed."""

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        return _RelaxedFile(super().open(path, create=create, exclusive=exclusive, direct=direct))
