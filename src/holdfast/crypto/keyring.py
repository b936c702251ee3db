"""The keyring: every long-lived secret of a store, in epochs. docs/formats/keyring.md is the specification.

Rules.

- Sealing uses the newest epoch; opening, the one that the sealed thing names. Rotation adds an epoch and rewraps what
  wraps keys; data is never sealed again. An epoch is retired when nothing refers to it any more, which is for the
  caller to know.
- A keyring hands out capabilities, one purpose each: who walks trees or opens tags need not hold what reads data.
- A `Keyring` is a value. Its `repr` shows no secret.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import pairwise

import msgspec

from holdfast.core.clock import Randomness
from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import RANDOM_ID_BYTES, Buffer, StoreId
from holdfast.crypto.derive import KEY_BYTES, Context
from holdfast.crypto.envelope import EnvelopeOpener, EnvelopeSealer
from holdfast.crypto.tags import TagOpener, TagSealer

VERSION = 1

# Yearly rotations for a lifetime, or daily ones while the oldest are retired: a bound for the decoder.
EPOCHS_MAX_COUNT = 256

_EPOCH_NUMBER_MAX = 2**32 - 1


class Purpose(Enum):
    """What an epoch's key is for."""

    METADATA = Context.ROW
    """Seals row values."""
    READ = Context.READ_WRAP
    """Wraps the read keys of roots: who holds it reads data."""
    WALK = Context.WALK_WRAP
    """Wraps the walk keys of roots: who holds it finds blocks and reads none."""
    TAG = Context.TAG
    """Seals fragment tags."""


@dataclass(frozen=True, slots=True)
class KeyEpoch:
    """One generation of keys, KEY_BYTES each."""

    number: int
    """From 1, growing; envelopes carry it."""
    metadata: bytes = field(repr=False)
    read_wrap: bytes = field(repr=False)
    walk_wrap: bytes = field(repr=False)
    tag: bytes = field(repr=False)

    def key(self, purpose: Purpose) -> bytes:
        match purpose:
            case Purpose.METADATA:
                return self.metadata
            case Purpose.READ:
                return self.read_wrap
            case Purpose.WALK:
                return self.walk_wrap
            case Purpose.TAG:
                return self.tag


@dataclass(frozen=True, slots=True)
class Keyring:
    """The secrets of a store."""

    store: StoreId
    epochs: tuple[KeyEpoch, ...]
    """Oldest first, at least one."""
    signing_seed: bytes = field(repr=False)
    """Ed25519: `signature` signs layouts with it."""

    @property
    def current(self) -> KeyEpoch:
        """The epoch that seals."""
        return self.epochs[-1]

    def sealer(self, purpose: Purpose, randomness: Randomness) -> EnvelopeSealer:
        return EnvelopeSealer(self.current.number, self.current.key(purpose), purpose.value, randomness)

    def opener(self, purpose: Purpose) -> EnvelopeOpener:
        return EnvelopeOpener({epoch.number: epoch.key(purpose) for epoch in self.epochs}, purpose.value)

    def tag_sealer(self, randomness: Randomness) -> TagSealer:
        return TagSealer(self.sealer(Purpose.TAG, randomness))

    def tag_opener(self) -> TagOpener:
        return TagOpener(self.opener(Purpose.TAG))


def new_keyring(store: StoreId, randomness: Randomness) -> Keyring:
    """A keyring of one epoch."""
    assert len(store) == RANDOM_ID_BYTES
    return Keyring(store, (_new_epoch(1, randomness),), randomness.bytes(KEY_BYTES))


def rotated(keyring: Keyring, randomness: Randomness) -> Keyring:
    """With one epoch more, which seals from now on. Raises InvalidRequest when the oldest must be retired first."""
    if len(keyring.epochs) >= EPOCHS_MAX_COUNT:
        raise InvalidRequest(f"a keyring holds {EPOCHS_MAX_COUNT} epochs at most: retire the oldest first")
    return replace(keyring, epochs=(*keyring.epochs, _new_epoch(keyring.current.number + 1, randomness)))


def retired(keyring: Keyring, numbers: Collection[int]) -> Keyring:
    """Without these epochs. What still names one of them is lost. Raises InvalidRequest for the current or unknown."""
    known = {epoch.number for epoch in keyring.epochs}
    if keyring.current.number in numbers:
        raise InvalidRequest("the current epoch cannot be retired: rotate first")
    if not known.issuperset(numbers):
        raise InvalidRequest(f"no such epochs: {sorted(set(numbers) - known)}")
    return replace(keyring, epochs=tuple(epoch for epoch in keyring.epochs if epoch.number not in numbers))


class _EpochDocument(msgspec.Struct, array_like=True, frozen=True):
    number: int
    metadata: bytes
    read_wrap: bytes
    walk_wrap: bytes
    tag: bytes


class _KeyringDocument(msgspec.Struct, array_like=True, frozen=True):
    version: int
    store: bytes
    signing_seed: bytes
    epochs: list[_EpochDocument]


_decoder = msgspec.msgpack.Decoder(_KeyringDocument)

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for bytes that are no document: the last two for text that is no UTF-8, and deep nesting."""


def encode_keyring(keyring: Keyring) -> bytes:
    """The keyring document: every secret in the clear."""
    epochs = [
        _EpochDocument(epoch.number, epoch.metadata, epoch.read_wrap, epoch.walk_wrap, epoch.tag)
        for epoch in keyring.epochs
    ]
    return msgspec.msgpack.encode(_KeyringDocument(VERSION, keyring.store, keyring.signing_seed, epochs))


def decode_keyring(data: Buffer) -> Keyring:
    """The keyring of a document. Raises Corrupt."""
    try:
        document = _decoder.decode(data)
    except UNDECODABLE:
        # Its message might quote what it read.
        raise Corrupt("a keyring document cannot be decoded") from None
    if document.version != VERSION:
        raise Corrupt(f"a keyring document is of version {document.version}, which this version does not know")
    numbers = [epoch.number for epoch in document.epochs]
    keys = [document.signing_seed]
    for epoch in document.epochs:
        keys += (epoch.metadata, epoch.read_wrap, epoch.walk_wrap, epoch.tag)
    if (
        len(document.store) != RANDOM_ID_BYTES
        or any(len(key) != KEY_BYTES for key in keys)
        or not 1 <= len(numbers) <= EPOCHS_MAX_COUNT
        or not 1 <= numbers[0] <= numbers[-1] <= _EPOCH_NUMBER_MAX
        or any(older >= newer for older, newer in pairwise(numbers))
    ):
        raise Corrupt("a keyring document contradicts its format")
    epochs = tuple(
        KeyEpoch(epoch.number, epoch.metadata, epoch.read_wrap, epoch.walk_wrap, epoch.tag) for epoch in document.epochs
    )
    keyring = Keyring(StoreId(document.store), epochs, document.signing_seed)
    if encode_keyring(keyring) != bytes(data):
        raise Corrupt("a keyring document is not in its one encoding")
    return keyring


def _new_epoch(number: int, randomness: Randomness) -> KeyEpoch:
    return KeyEpoch(
        number,
        metadata=randomness.bytes(KEY_BYTES),
        read_wrap=randomness.bytes(KEY_BYTES),
        walk_wrap=randomness.bytes(KEY_BYTES),
        tag=randomness.bytes(KEY_BYTES),
    )
