"""Envelopes: small messages sealed under a key that lives long. Rows, wrapped root keys and tags are envelopes.

    version 1 B | epoch 4 B | salt 16 B | commitment 16 B | nonce 12 B | ciphertext | GCM tag 16 B

docs/formats/keyring.md is the specification. Rules.

- No counters. A sealer draws a random salt when it is made and again after MESSAGES_PER_SALT messages; the cipher's
  key is derived from the long-lived key and the salt. Nonces are random. A process, a clone of its machine or a
  restored snapshot may seal at the same time: for a nonce to repeat under one key, random bits must.
- The associated data says where the message belongs (a row's key, a content's id): moved elsewhere it does not open.
- An envelope names its epoch, so that a new epoch takes over without anything being sealed again at once.

Both classes may be called from any thread.
"""

import struct
from collections.abc import Mapping
from functools import lru_cache
from hmac import compare_digest
from itertools import count

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from holdfast.core.clock import Randomness
from holdfast.core.errors import Corrupt
from holdfast.core.ids import Buffer
from holdfast.crypto.derive import KEY_BYTES, Context, derive

VERSION = 1

_SALT_BYTES = 16
_NONCE_BYTES = 12
_TAG_BYTES = 16

# Who can make two envelope keys commit to the same bytes holds the keyring anyway, so 128 bits are enough here.
_COMMITMENT_BYTES = 16

_HEADER = struct.Struct(f"<BI{_SALT_BYTES}s{_COMMITMENT_BYTES}s{_NONCE_BYTES}s")
_EPOCH = struct.Struct("<BI")

OVERHEAD_BYTES = _HEADER.size + _TAG_BYTES
"""What an envelope is longer than its message."""

# 2**20 random 96-bit nonces under one key collide with a probability of 2**-57; a new salt costs 5 us.
MESSAGES_PER_SALT = 2**20

# One entry, about 1 KiB, for each process and each 2**20 rows that it wrote. Scans meet few salts at a time.
_OPEN_CIPHERS_MAX_COUNT = 1024


class UnknownEpoch(Corrupt):
    """The envelope names an epoch that the keyring at hand lacks: it is damaged, or the keyring was rotated since."""


class EnvelopeSealer:
    """Seals messages under one epoch's key."""

    def __init__(self, epoch: int, key: bytes, context: Context, randomness: Randomness) -> None:
        self._epoch = epoch
        self._key = key
        self._context = context
        self._randomness = randomness
        self._state = self._renewed()

    @property
    def epoch(self) -> int:
        return self._epoch

    def seal(self, message: Buffer, associated: bytes) -> bytes:
        """The envelope of `message`, which opens only together with `associated`."""
        cipher, prefix, messages = self._state
        # `next` is atomic. Threads that race past the limit each renew, which wastes a salt and harms nothing.
        if next(messages) >= MESSAGES_PER_SALT:
            cipher, prefix, messages = self._state = self._renewed()
        nonce = self._randomness.bytes(_NONCE_BYTES)
        return b"".join((prefix, nonce, cipher.encrypt(nonce, message, associated)))

    def _renewed(self) -> tuple[AESGCM, bytes, "count[int]"]:
        salt = self._randomness.bytes(_SALT_BYTES)
        cipher, commitment = _cipher(self._key, salt, self._context)
        return cipher, _EPOCH.pack(VERSION, self._epoch) + salt + commitment, count()


class EnvelopeOpener:
    """Opens what was sealed under any of the epochs that it holds keys of."""

    def __init__(self, keys: Mapping[int, bytes], context: Context) -> None:
        self._keys = dict(keys)
        self._context = context
        # The C implementation of lru_cache is safe to call from threads, bounded, and faster than any of ours.
        self._cipher = lru_cache(maxsize=_OPEN_CIPHERS_MAX_COUNT)(self._derived)

    def open(self, sealed: Buffer, associated: bytes) -> bytes:
        """The message. Raises Corrupt; UnknownEpoch, which is Corrupt too, when the epoch's key is not at hand."""
        if len(sealed) < OVERHEAD_BYTES:
            raise Corrupt("an envelope is cut short")
        version, epoch, salt, commitment, nonce = _HEADER.unpack_from(sealed)
        if version != VERSION:
            raise Corrupt(f"an envelope is of version {version}, which this version does not know")
        cipher, expected = self._cipher(epoch, salt)
        if not compare_digest(commitment, expected):
            raise Corrupt("an envelope was sealed under another key, or is damaged")
        try:
            return cipher.decrypt(nonce, memoryview(sealed)[_HEADER.size :], associated)
        except InvalidTag:
            raise Corrupt("an envelope is damaged, or belongs elsewhere") from None

    def _derived(self, epoch: int, salt: bytes) -> tuple[AESGCM, bytes]:
        key = self._keys.get(epoch)
        if key is None:
            raise UnknownEpoch(f"an envelope names epoch {epoch}, which is not in the keyring")
        return _cipher(key, salt, self._context)


def epoch_of(sealed: Buffer) -> int:
    """The epoch that an envelope names. Not authenticated before it is opened. Raises Corrupt."""
    if len(sealed) < OVERHEAD_BYTES or sealed[0] != VERSION:
        raise Corrupt("not an envelope that this version knows")
    _, epoch = _EPOCH.unpack_from(sealed)
    assert isinstance(epoch, int)
    return epoch


def rewrap(sealed: bytes, associated: bytes, opener: EnvelopeOpener, sealer: EnvelopeSealer) -> bytes:
    """`sealed` itself when it is of the sealer's epoch, else its message sealed anew. Raises Corrupt."""
    message = opener.open(sealed, associated)
    return sealed if epoch_of(sealed) == sealer.epoch else sealer.seal(message, associated)


def _cipher(key: bytes, salt: bytes, context: Context) -> tuple[AESGCM, bytes]:
    secret = derive(key + salt, context, KEY_BYTES + _COMMITMENT_BYTES)
    return AESGCM(secret[:KEY_BYTES]), secret[KEY_BYTES:]
