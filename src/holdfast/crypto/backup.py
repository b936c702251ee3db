"""A keyring's backup: text that can be mailed to oneself, printed, and told apart from others by eye.

    holdfast keyring backup 1
    store: 32 hex digits
    fingerprint: six groups of four letters and digits
    (the wrapped keyring in base64, 64 characters a line)
    end

The fingerprint is derived one-way from every secret of the keyring: two keyrings with the same fingerprint are the
same keyring, and `status` can show it. docs/formats/keyring.md is the specification.
"""

import base64
import binascii
from dataclasses import dataclass

from holdfast.core.clock import Randomness
from holdfast.core.errors import Corrupt
from holdfast.core.ids import RANDOM_ID_BYTES, StoreId
from holdfast.crypto.derive import Context, derive
from holdfast.crypto.kek import KeyEncryptionKey, unwrap_keyring, wrap_keyring
from holdfast.crypto.keyring import Keyring, encode_keyring

_HEADER = "holdfast keyring backup 1"
_FOOTER = "end"
_STORE = "store: "
_FINGERPRINT = "fingerprint: "
_LINE_CHARS = 64

# 120 bits: 24 characters of base32, short enough to compare by eye, and no second keyring will ever have them.
_FINGERPRINT_BYTES = 15
_GROUP_CHARS = 4


@dataclass(frozen=True, slots=True)
class Backup:
    """What a backup says before it is opened. Only `restore` proves that it is true."""

    store: StoreId
    fingerprint: str
    wrapped: bytes


def fingerprint(keyring: Keyring) -> str:
    """Names the keyring, secrets and all, and tells none of them: "ABCD-EFGH-..."."""
    digest = derive(encode_keyring(keyring), Context.FINGERPRINT, _FINGERPRINT_BYTES)
    text = base64.b32encode(digest).decode()
    return "-".join(text[at : at + _GROUP_CHARS] for at in range(0, len(text), _GROUP_CHARS))


def write_backup(keyring: Keyring, kek: KeyEncryptionKey, randomness: Randomness) -> bytes:
    """The backup's text. Worth as little as the KEK is secret: wrap it under a passphrase or a key kept elsewhere."""
    backup = Backup(keyring.store, fingerprint(keyring), wrap_keyring(keyring, kek, randomness))
    return _encode(backup)


def read_backup(data: bytes) -> Backup:
    """The parts of a backup's text; line ends and blanks around lines do not matter. Raises Corrupt."""
    try:
        lines = [line.strip() for line in data.decode("ascii").split("\n")]
        lines = [line for line in lines if line]
        store_line, fingerprint_line = lines[1], lines[2]
        wrapped = base64.b64decode("".join(lines[3:-1]), validate=True)
        backup = Backup(
            StoreId(bytes.fromhex(store_line.removeprefix(_STORE))),
            fingerprint_line.removeprefix(_FINGERPRINT),
            wrapped,
        )
    except (UnicodeDecodeError, ValueError, IndexError, binascii.Error) as error:
        raise Corrupt("not a keyring backup, or a damaged one") from error
    if len(backup.store) != RANDOM_ID_BYTES or _encode(backup).decode("ascii").split("\n")[:-1] != lines:
        raise Corrupt("not a keyring backup of this version, or a damaged one")
    return backup


def restore(data: bytes, kek: KeyEncryptionKey) -> Keyring:
    """The keyring, and proof that the backup is whole. Raises Corrupt, and AccessDenied for the wrong key."""
    backup = read_backup(data)
    keyring = unwrap_keyring(backup.wrapped, kek)
    if keyring.store != backup.store or fingerprint(keyring) != backup.fingerprint:
        raise Corrupt("a keyring backup holds another keyring than it says")
    return keyring


def _encode(backup: Backup) -> bytes:
    text = base64.b64encode(backup.wrapped).decode()
    lines = [
        _HEADER,
        _STORE + backup.store.hex(),
        _FINGERPRINT + backup.fingerprint,
        *(text[at : at + _LINE_CHARS] for at in range(0, len(text), _LINE_CHARS)),
        _FOOTER,
        "",
    ]
    return "\n".join(lines).encode()
