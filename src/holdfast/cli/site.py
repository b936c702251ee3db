"""The directories that a store is told of: which are its drives, which are missing, and how a new store is made.

Rules.

- A directory is a drive because of the identity in it, never because of its name or place: drives may be swapped
  between mount points.
- Among drives, an empty directory is a missing drive. Only when *no* directory holds a drive is a new store made.
- Making a store can be cut off anywhere: a journal in the first directory says what was begun, and the next start
  takes it all back and begins again. Nothing was acknowledged by then.
- Each drive remembers where the others were last seen (docs/formats/places.md), so that a drive that was added while
  the server ran is found by the next start too. That is a hint: only the identity in a directory makes it a drive.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import msgspec

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import AlreadyExists, Corrupt, HoldfastError, InvalidRequest
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

PLACES_NAME = "holdfast.places"
_PLACES_FORMAT = 1


class _Places(msgspec.Struct):
    """Where a store's drives were last seen: absolute paths by drive id in hex."""

    format: int
    drives: dict[str, str]


class _Journal(msgspec.Struct):
    """What was begun: every directory of the store that is being made."""

    directories: Annotated[list[str], msgspec.Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Site:
    """Drives that were found, and directories in which none was."""

    store: StoreId
    drives: Mapping[DriveId, Path]
    missing: tuple[Path, ...]
    """Directories that were named and in which no drive is."""
    warnings: tuple[str, ...]
    unnamed: tuple[Path, ...] = ()
    """Drives of the store that were not named, and found where the others remember them."""
    absent: Mapping[DriveId, Path] = field(default_factory=dict)
    """Where drives that were not found were last seen."""

    @property
    def places(self) -> dict[DriveId, Path]:
        """Where every drive is, or was last seen."""
        return {**self.absent, **self.drives}


def survey(disk: Disk, directories: Sequence[Path]) -> Site | None:
    """What lies in the directories; None when they may become a new store.

    A directory that cannot be read, or whose identity is damaged, is a missing drive. Raises InvalidRequest (drives of
    different stores, a drive named twice), AlreadyExists (foreign files where a new store would be made), and when no
    directory holds a drive, what is the matter with the first.
    """
    if not directories:
        raise InvalidRequest("name at least one directory for the store's drives")
    if len({path.resolve() for path in directories}) != len(directories):
        raise InvalidRequest("a directory is named twice")
    identities: dict[Path, Identity] = {}
    foreign: list[Path] = []
    damaged: dict[Path, HoldfastError] = {}
    for path in directories:
        try:
            state = inspect_directory(disk, path)
            if state is DirectoryState.DRIVE:
                identities[path] = read_identity(disk, path)
            elif state is DirectoryState.FOREIGN:
                foreign.append(path)
        except HoldfastError as error:
            damaged[path] = error
    if not identities:
        if damaged:
            raise next(iter(damaged.values()))
        if foreign:
            raise AlreadyExists(
                f"{foreign[0]} holds files that are not Holdfast's: name empty directories, or ones that are not there"
            )
        return None
    return _site(disk, directories, identities, damaged)


def _site(
    disk: Disk,
    directories: Sequence[Path],
    identities: Mapping[Path, Identity],
    damaged: Mapping[Path, HoldfastError],
) -> Site:
    stores = {identity.store for identity in identities.values()}
    if len(stores) > 1:
        told = ", ".join(f"{path} of store {identity.store.hex()[:8]}" for path, identity in identities.items())
        raise InvalidRequest(f"these drives are of different stores: {told}; name the drives of one")
    store = stores.pop()
    drives: dict[DriveId, Path] = {}
    for path, identity in identities.items():
        if identity.drive in drives:
            raise InvalidRequest(f"{path} is a copy of {drives[identity.drive]}: remove one of them")
        drives[identity.drive] = path
    found, absent = look_around(disk, store, drives)
    warnings = [warning for path in (*identities, *found.values()) for warning in warnings_of(disk, path)]
    warnings += [str(error) for error in damaged.values()]
    missing = tuple(path for path in directories if path not in identities)
    return Site(store, {**drives, **found}, missing, tuple(warnings), tuple(found.values()), absent)


def look_around(
    disk: Disk, store: StoreId, drives: Mapping[DriveId, Path]
) -> tuple[dict[DriveId, Path], dict[DriveId, Path]]:
    """The other drives of a store, from what `drives` remember: those that are there, and where the rest were."""
    remembered: dict[DriveId, list[Path]] = {}
    for path in drives.values():
        for drive, place in read_places(disk, path).items():
            if drive not in drives and place not in remembered.setdefault(drive, []):
                remembered[drive].append(place)
    found: dict[DriveId, Path] = {}
    for drive, places in remembered.items():
        for place in places:
            if identity_at(disk, place) == Identity(store, drive):
                found[drive] = place
                break
    return found, {drive: places[0] for drive, places in remembered.items() if drive not in found}


def identity_at(disk: Disk, directory: Path) -> Identity | None:
    """Which drive is there; None when none can be seen."""
    try:
        return read_identity(disk, directory)
    except HoldfastError:
        return None


def read_places(disk: Disk, directory: Path) -> dict[DriveId, Path]:
    """What a drive remembers; nothing when it has never been told, or cannot be read. A hint need not be missed."""
    try:
        places = msgspec.json.decode(disk.read_file(directory / PLACES_NAME), type=_Places)
        if places.format != _PLACES_FORMAT:
            return {}
        return {DriveId(bytes.fromhex(drive)): Path(place) for drive, place in places.drives.items()}
    except (OSError, msgspec.MsgspecError, ValueError):
        return {}


def write_places(disk: Disk, drives: Iterable[Path], places: Mapping[DriveId, Path]) -> None:
    """Have every drive remember where all are. One that cannot be written does without."""
    wanted = {drive: place.absolute() for drive, place in places.items()}
    text = msgspec.json.encode(_Places(_PLACES_FORMAT, {drive.hex(): str(at) for drive, at in sorted(wanted.items())}))
    for path in drives:
        if read_places(disk, path) == wanted:
            continue
        try:
            disk.replace_file(path / PLACES_NAME, msgspec.json.format(text, indent=1))
        except OSError:
            continue


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
        try:
            journal = msgspec.json.decode(disk.read_file(path / JOURNAL_NAME), type=_Journal)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(
                f"{path / JOURNAL_NAME} cannot be read ({error}): the making of a store was cut off; empty its "
                "directories by hand and start again"
            ) from None
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
