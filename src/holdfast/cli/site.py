"""The directories that a store is told of: which are its drives, which are missing, and how a new store is made.

Rules.

- A directory is a drive because of the identity in it, never because of its name or place: drives may be swapped
  between mount points.
- Among drives, an empty directory is a missing drive. Only when *no* directory holds a drive is a new store made.
- Making a store can be cut off anywhere: a journal in the first directory says what was begun, and the next start
  takes it all back and begins again. Nothing was acknowledged by then.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import AlreadyExists, InvalidRequest
from holdfast.core.ids import DriveId, StoreId, new_store_id
from holdfast.drives.identity import (
    JOURNAL_NAME,
    DirectoryState,
    Identity,
    create_drive,
    inspect_directory,
    read_identity,
    warnings_of,
)


class _Journal(msgspec.Struct):
    """What was begun: every directory of the store that is being made."""

    directories: list[str]


@dataclass(frozen=True, slots=True)
class Site:
    """Drives that were found, and directories in which none was."""

    store: StoreId
    drives: Mapping[DriveId, Path]
    missing: tuple[Path, ...]
    warnings: tuple[str, ...]


def survey(disk: Disk, directories: Sequence[Path]) -> Site | None:
    """What lies in the directories; None when they may become a new store.

    Raises InvalidRequest (drives of different stores, a drive named twice), AlreadyExists (foreign files where a new
    store would be made), AccessDenied, Corrupt.
    """
    if not directories:
        raise InvalidRequest("name at least one directory for the store's drives")
    if len({path.resolve() for path in directories}) != len(directories):
        raise InvalidRequest("a directory is named twice")
    identities: dict[Path, Identity] = {}
    foreign: list[Path] = []
    for path in directories:
        state = inspect_directory(disk, path)
        if state is DirectoryState.DRIVE:
            identities[path] = read_identity(disk, path)
        elif state is DirectoryState.FOREIGN:
            foreign.append(path)
    if not identities:
        if foreign:
            raise AlreadyExists(
                f"{foreign[0]} holds files that are not Holdfast's: name empty directories, or ones that are not there"
            )
        return None
    return _site(disk, directories, identities)


def _site(disk: Disk, directories: Sequence[Path], identities: Mapping[Path, Identity]) -> Site:
    stores = {identity.store for identity in identities.values()}
    if len(stores) > 1:
        told = ", ".join(f"{path} of store {identity.store.hex()[:8]}" for path, identity in identities.items())
        raise InvalidRequest(f"these drives are of different stores: {told}; name the drives of one")
    drives: dict[DriveId, Path] = {}
    for path, identity in identities.items():
        if identity.drive in drives:
            raise InvalidRequest(f"{path} is a copy of {drives[identity.drive]}: remove one of them")
        drives[identity.drive] = path
    warnings = [warning for path in identities for warning in warnings_of(disk, path)]
    missing = tuple(path for path in directories if path not in identities)
    return Site(stores.pop(), drives, missing, tuple(warnings))


def begin(disk: Disk, randomness: Randomness, directories: Sequence[Path]) -> Site:
    """Make drives of empty directories, with a journal that `finish` removes. Raises what `create_drive` raises."""
    store = new_store_id(randomness)
    for path in directories:
        disk.make_directory(path)
    journal = _Journal([str(path.resolve()) for path in directories])
    disk.replace_file(directories[0] / JOURNAL_NAME, msgspec.json.encode(journal))
    drives = {create_drive(disk, randomness, path, store).drive: path for path in directories}
    return Site(store, drives, (), tuple(warning for path in directories for warning in warnings_of(disk, path)))


def finish(disk: Disk, directories: Sequence[Path]) -> None:
    """The store is made: from now on its drives are drives for good."""
    disk.unlink(directories[0] / JOURNAL_NAME)
    disk.sync_directory(directories[0])


def undo_unfinished(disk: Disk, directories: Sequence[Path]) -> bool:
    """Take back a making that was cut off. Whether there was one.

    Everything in the directories that the journal names is Holdfast's: they were empty when it was written.
    """
    for path in directories:
        if not disk.exists(path / JOURNAL_NAME):
            continue
        journal = msgspec.json.decode(disk.read_file(path / JOURNAL_NAME), type=_Journal)
        if path.resolve() != Path(journal.directories[0]):
            raise InvalidRequest(
                f"{path / JOURNAL_NAME} was written when this directory was {journal.directories[0]}: the making of "
                "a store was cut off; empty its directories by hand and start again"
            )
        for listed in journal.directories[1:]:
            _empty(disk, Path(listed), keep=())
        _empty(disk, path, keep=(JOURNAL_NAME,))
        finish(disk, [path])
        return True
    return False


def _empty(disk: Disk, directory: Path, keep: Sequence[str]) -> None:
    if not disk.exists(directory):
        return
    for name in disk.list_directory(directory):
        entry = directory / name
        if name in keep or name == "lost+found":
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            disk.unlink(entry)
    disk.sync_directory(directory)
