"""Who a drive is: a small file that says to which store it belongs. Format: docs/formats/identity.md.

Rules. A directory without an identity is a missing drive, never a new one: an unmounted disk leaves an empty mount
point behind, and writing there would fill the wrong file system. A drive becomes one only through `create_drive`,
which refuses a directory that holds anything else. A drive of another store, or of a newer format, is refused.
"""

import errno
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from struct import Struct

from xxhash import xxh3_64_intdigest

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import AccessDenied, AlreadyExists, Corrupt, Full, HoldfastError, InvalidRequest, NodeDown
from holdfast.core.ids import DriveId, StoreId, new_drive_id

IDENTITY_NAME = "holdfast.drive"

JOURNAL_NAME = "holdfast.making"
"""Written while a store is being made, by whoever makes it; a directory with it and nothing else is empty."""

_MAGIC = b"holdfast drive\r\n"
_FORMAT = 1
_IDENTITY = Struct("<16sI16s16s")
_CHECKSUM = Struct("<Q")

# What file systems put into their root by themselves.
_HARMLESS = frozenset({JOURNAL_NAME, "lost+found", ".Trash-0", ".Spotlight-V100", ".fseventsd"})

# File systems on which acknowledged bytes may not survive, or flock and LMDB may not work.
_VOLATILE = frozenset({"tmpfs", "ramfs"})
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})


@dataclass(frozen=True, slots=True)
class Identity:
    store: StoreId
    drive: DriveId


class DirectoryState(StrEnum):
    """What a directory is, before anything is done to it."""

    DRIVE = "drive"
    MISSING = "missing"
    EMPTY = "empty"
    FOREIGN = "foreign"


def encode_identity(identity: Identity) -> bytes:
    body = _IDENTITY.pack(_MAGIC, _FORMAT, identity.store, identity.drive)
    return body + _CHECKSUM.pack(xxh3_64_intdigest(body))


def decode_identity(data: bytes, directory: Path) -> Identity:
    """Raises Corrupt for bytes that are no identity, InvalidRequest for a format from the future."""
    name = directory / IDENTITY_NAME
    if len(data) < _IDENTITY.size + _CHECKSUM.size or data[: len(_MAGIC)] != _MAGIC:
        raise Corrupt(f"{name} is not an identity file: replace the drive, its fragments will be rebuilt elsewhere")
    _, version, store, drive = _IDENTITY.unpack_from(data)
    if _CHECKSUM.unpack_from(data, _IDENTITY.size)[0] != xxh3_64_intdigest(data[: _IDENTITY.size]):
        raise Corrupt(f"{name} does not match its checksum: check the disk, then replace the drive")
    if version != _FORMAT:
        raise InvalidRequest(f"{name} has format {version}, this Holdfast knows {_FORMAT}: use a newer Holdfast")
    return Identity(StoreId(store), DriveId(drive))


def inspect_directory(disk: Disk, directory: Path) -> DirectoryState:
    """What lies there. Raises AccessDenied, NodeDown."""
    try:
        names = disk.list_directory(directory)
    except (FileNotFoundError, NotADirectoryError):
        return DirectoryState.MISSING
    except OSError as error:
        raise _mapped(error, directory) from error
    if IDENTITY_NAME in names:
        return DirectoryState.DRIVE
    return DirectoryState.EMPTY if all(map(_is_harmless, names)) else DirectoryState.FOREIGN


def _is_harmless(name: str) -> bool:
    """Nothing of anybody's: the file system's own, or what a cut left of an identity or a journal that was being
    written (`Disk.replace_file`)."""
    return name in _HARMLESS or (name.startswith(".holdfast.") and name.endswith(".tmp"))


def create_drive(disk: Disk, randomness: Randomness, directory: Path, store: StoreId) -> Identity:
    """Make a drive of `store` out of a directory that is empty or not there yet; durable on return.

    Raises AlreadyExists (it is a drive already, or holds something else), AccessDenied, Full, NodeDown.
    """
    state = inspect_directory(disk, directory)
    if state is DirectoryState.DRIVE:
        raise AlreadyExists(f"{directory} is a drive already: open it, or name another directory")
    if state is DirectoryState.FOREIGN:
        raise AlreadyExists(
            f"{directory} holds files that are not Holdfast's: name an empty directory, or one that is not there yet"
        )
    identity = Identity(store, new_drive_id(randomness))
    try:
        disk.make_directory(directory)
        disk.replace_file(directory / IDENTITY_NAME, encode_identity(identity), mode=0o644)
    except OSError as error:
        raise _mapped(error, directory) from error
    return identity


def read_identity(disk: Disk, directory: Path) -> Identity:
    """The drive's identity. Raises NodeDown (no drive there), Corrupt, AccessDenied, InvalidRequest."""
    try:
        return decode_identity(disk.read_file(directory / IDENTITY_NAME), directory)
    except (FileNotFoundError, NotADirectoryError):
        raise NodeDown(
            f"{directory} is no Holdfast drive ({IDENTITY_NAME} is missing): mount the disk that belongs there, "
            "or replace the drive"
        ) from None
    except OSError as error:
        raise _mapped(error, directory) from error


def holds_drive(disk: Disk, directory: Path, drive: DriveId) -> bool:
    """Whether the drive that was opened there still is: not an empty mount point, and no other one."""
    try:
        return read_identity(disk, directory).drive == drive
    except HoldfastError:
        return False


def check_identity(identity: Identity, directory: Path, *, store: StoreId, drive: DriveId | None = None) -> None:
    """Raises InvalidRequest when the drive is of another store, or not the one that belongs here."""
    if identity.store != store:
        raise InvalidRequest(
            f"{directory} belongs to store {identity.store.hex()}, this is store {store.hex()}: "
            "check what is mounted there, or name another directory"
        )
    if drive is not None and identity.drive != drive:
        raise InvalidRequest(
            f"{directory} holds drive {identity.drive.hex()}, expected was {drive.hex()}: were two disks swapped?"
        )


def warnings_of(disk: Disk, directory: Path) -> list[str]:
    """What an operator should know of the file system under a drive; empty when there is nothing to say."""
    kind = disk.kind(directory)
    if kind in _VOLATILE:
        return [f"{directory} lies on {kind}, in memory: everything on it is gone after a restart of the machine"]
    if kind in _NETWORK:
        return [f"{directory} lies on {kind}, a network file system: locks and syncs may not hold what they promise"]
    return []


def _mapped(error: OSError, directory: Path) -> HoldfastError:
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDenied(f"{directory} cannot be used ({error.strerror}): check its owner and how it is mounted")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(f"no space left under {directory}: free some")
    return NodeDown(f"{directory} does not answer ({error.strerror}): check the disk")
