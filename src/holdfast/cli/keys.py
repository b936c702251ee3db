"""Where the key-encryption key lies, and how it is found.

On one machine it lies on every drive by default (`DIR/keys/kek`, mode 0600), so that a store starts without asking:
that protects drives that are thrown away one by one, and not against theft of the machine. `keyring detach` takes it
away, to a file elsewhere, into a passphrase, or to a key management service.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from holdfast.cli.kms import Kms
from holdfast.core.disk import Disk
from holdfast.core.errors import AccessDenied, Corrupt, InvalidRequest, NotFound, Unavailable
from holdfast.core.ids import Buffer
from holdfast.crypto.kek import (
    KeyEncryptionKey,
    decode_kek_file,
    encode_kek_file,
    kek_from_passphrase,
    kms_ciphertext,
    passphrase_parameters,
    unwrap_keyring,
)
from holdfast.crypto.keyring import Keyring
from holdfast.meta.interface import Meta, Row
from holdfast.objects.rows import KEYRING

KEYS_NAME = "keys"
KEK_NAME = "kek"

REKEYED_NAME = "rekeyed"
"""In the run directory: the keyring was wrapped under another key since the server was started."""


def kek_path(drive: Path) -> Path:
    return drive / KEYS_NAME / KEK_NAME


def write_kek(disk: Disk, drives: Iterable[Path], kek: KeyEncryptionKey) -> None:
    """Put the key on every drive; durable. Raises OSError."""
    for drive in drives:
        disk.make_directory(drive / KEYS_NAME)
        disk.replace_file(kek_path(drive), encode_kek_file(kek), mode=0o600)


def drives_with_kek(disk: Disk, drives: Iterable[Path]) -> list[Path]:
    """Drives from which a thief would read the key."""
    return [drive for drive in drives if disk.exists(kek_path(drive))]


def find_kek(
    disk: Disk,
    drives: Iterable[Path],
    wrapped: Buffer,
    *,
    kek_file: Path | None,
    passphrase_file: Path | None,
    kms: Kms | None = None,
) -> KeyEncryptionKey:
    """The key that opens this keyring.

    Raises AccessDenied when there is none to be found, and says what was looked for; Unavailable when a service does
    not answer.
    """
    sealed = kms_ciphertext(wrapped)
    if sealed is not None:
        if kms is None:
            raise AccessDenied("the key was detached to a KMS: give --kms and --kms-token-file")
        return KeyEncryptionKey(kms.open(sealed), kms=sealed)
    parameters = passphrase_parameters(wrapped)
    if parameters is not None:
        if passphrase_file is None:
            raise AccessDenied("the keyring is wrapped under a passphrase: give --passphrase-file")
        return kek_from_passphrase(read_passphrase(passphrase_file), parameters)
    if kek_file is not None:
        return _read_kek_file(disk, kek_file)
    damaged: list[Path] = []
    for drive in drives:
        path = kek_path(drive)
        if not disk.exists(path):
            continue
        try:
            return decode_kek_file(disk.read_file(path))
        except (Corrupt, OSError):
            damaged.append(path)
    if damaged:
        raise AccessDenied(f"no readable key on the drives ({damaged[0]} is damaged): give --kek-file, or restore it")
    raise AccessDenied("the key was detached from the drives: give --kek-file")


def remove_kek(disk: Disk, drives: Iterable[Path]) -> list[Path]:
    """Take the key off the drives; durable. Those from which it could not be removed."""
    left: list[Path] = []
    for drive in drives:
        try:
            if disk.exists(kek_path(drive)):
                disk.unlink(kek_path(drive))
                disk.sync_directory(drive / KEYS_NAME)
        except OSError:
            left.append(drive)
    return left


@dataclass(frozen=True, slots=True)
class KeySources:
    """Where this process may find the key-encryption key."""

    disk: Disk
    drives: tuple[Path, ...]
    kek_file: Path | None
    passphrase_file: Path | None
    kms: Kms | None = None

    async def find(self, wrapped: Buffer) -> KeyEncryptionKey:
        """Raises as `find_kek`."""
        return await asyncio.to_thread(
            find_kek,
            self.disk,
            self.drives,
            wrapped,
            kek_file=self.kek_file,
            passphrase_file=self.passphrase_file,
            kms=self.kms,
        )


class HeldKeys:
    """The keyring as one process holds it open, and what opened it."""

    def __init__(self, sources: KeySources, row: Row, kek: KeyEncryptionKey, keyring: Keyring) -> None:
        self.sources = sources
        self.row = row
        """The wrapped keyring's row, as it was read."""
        self.kek = kek
        self.keyring = keyring
        self.changed: Callable[[], None] = _nobody_to_tell
        """Called when `follow` took up another keyring."""

    @classmethod
    async def open(cls, meta: Meta, sources: KeySources) -> "HeldKeys":
        """Raises Unavailable in a store that was not made to the end, AccessDenied, Corrupt."""
        try:
            row = await meta.get(KEYRING)
        except NotFound:
            raise Unavailable("the metadata holds no keyring: the store was not made to the end") from None
        kek = await sources.find(row.value)
        try:
            return cls(sources, row, kek, unwrap_keyring(row.value, kek))
        except AccessDenied:
            if sources.kek_file is not None or kek.passphrase is not None or kek.kms is not None:
                raise
            raise AccessDenied(
                "the key on the drives is an old one, from before it was detached: give --kek-file"
            ) from None

    async def follow(self, meta: Meta) -> None:
        """Take up the keyring that the metadata holds now. Raises AccessDenied when it is wrapped under a key that this
        process was not given."""
        row = await meta.get(KEYRING)
        if row.token == self.row.token:
            return
        try:
            keyring = unwrap_keyring(row.value, self.kek)
        except AccessDenied:
            self.kek = await self.sources.find(row.value)
            keyring = unwrap_keyring(row.value, self.kek)
        changed = keyring != self.keyring
        self.row, self.keyring = row, keyring
        if changed:
            self.changed()


def _nobody_to_tell() -> None:
    """While the store is being opened, nothing uses the keyring yet."""


def _read_kek_file(disk: Disk, path: Path) -> KeyEncryptionKey:
    try:
        return decode_kek_file(disk.read_file(path))
    except OSError as error:
        raise AccessDenied(f"{path}: {error.strerror}") from None


def read_passphrase(path: Path) -> str:
    """What a file holds, whose last line end does not count. Raises AccessDenied, InvalidRequest. Blocks."""
    try:
        return path.read_text().rstrip("\r\n")
    except OSError as error:
        raise AccessDenied(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidRequest(f"{path} is not text in UTF-8") from None
