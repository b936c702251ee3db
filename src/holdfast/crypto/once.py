"""A message under a key that seals nothing else: AES-256-GCM with a fixed nonce.

The caller guarantees what makes that right: the key was derived from fresh random bytes for this one message.
"""

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.core.errors import Corrupt
from holdfast.core.ids import Buffer

_NONCE = bytes(12)

OVERHEAD_BYTES = 16
"""What the sealed message is longer."""


def seal_once(key: bytes, message: Buffer, associated: Buffer) -> bytes:
    """The ciphertext and its tag. `key` is KEY_BYTES long and is never used again."""
    return AESGCM(key).encrypt(_NONCE, message, associated)


def open_once(key: bytes, sealed: Buffer, associated: Buffer) -> bytes:
    """The message. Raises Corrupt."""
    try:
        return AESGCM(key).decrypt(_NONCE, sealed, associated)
    except InvalidTag:
        raise Corrupt("a sealed message does not open") from None
