"""The key-encryption key, and the keyring wrapped under it. docs/formats/keyring.md is the specification.

Whoever holds the key-encryption key (KEK) and the wrapped keyring reads the store. The KEK is 32 random bytes in a
file, or is made from a passphrase by argon2id, or lies sealed beside the keyring and is opened by a key management
service; changing it rewraps one small document and touches nothing else.

A wrapped keyring carries a checksum besides its authentication, so that damage (Corrupt) can be told from the wrong
key or passphrase (AccessDenied). Whoever forges the checksum too gets AccessDenied or Corrupt, never a keyring.
"""

import base64
import binascii
import unicodedata
from dataclasses import dataclass, field
from hmac import compare_digest

import argon2.low_level
import msgspec
from blake3 import blake3

from holdfast.core.clock import Randomness
from holdfast.core.errors import AccessDenied, Corrupt, InvalidRequest
from holdfast.core.ids import Buffer
from holdfast.crypto.derive import KEY_BYTES, Context, derive
from holdfast.crypto.keyring import UNDECODABLE, Keyring, decode_keyring, encode_keyring
from holdfast.crypto.once import open_once, seal_once

VERSION = 1

# Each wrapping draws a salt, and from it a key that is used once.
_SALT_BYTES = 32
_COMMITMENT_BYTES = 32
_CHECKSUM_BYTES = 8
_FILE_CHECKSUM_BYTES = 4

_FILE_HEADER = b"holdfast key-encryption key 1\n"

# argon2id, RFC 9106 section 4, second recommended option: 64 MiB fit a small server beside everything else.
_PASSES_DEFAULT = 3
_MEMORY_DEFAULT_KIB = 64 * 1024
_LANES_DEFAULT = 4
_PASSPHRASE_SALT_BYTES = 16

# What a decoder accepts before it spends the time and memory that a stranger's document asks for.
_PASSES_MAX = 16
_MEMORY_MIN_KIB = 8 * 1024
_MEMORY_MAX_KIB = 1024 * 1024
_LANES_MAX = 16

# Services seal 32 bytes into some 100 characters; this is room for much longer names of keys.
KMS_CIPHERTEXT_MAX_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class PassphraseParameters:
    """How a passphrase becomes a key: argon2id, version 0x13."""

    salt: bytes
    passes: int
    memory_kib: int
    lanes: int

    def __post_init__(self) -> None:
        if (
            len(self.salt) != _PASSPHRASE_SALT_BYTES
            or not 1 <= self.passes <= _PASSES_MAX
            or not _MEMORY_MIN_KIB <= self.memory_kib <= _MEMORY_MAX_KIB
            or not 1 <= self.lanes <= _LANES_MAX
        ):
            raise InvalidRequest("argon2id parameters are outside the limits")


@dataclass(frozen=True, slots=True)
class KeyEncryptionKey:
    """The key that wraps the keyring."""

    key: bytes = field(repr=False)
    passphrase: PassphraseParameters | None = None
    """How it was made from a passphrase; None when it was drawn at random."""
    kms: str | None = None
    """What a key management service made of it, which it alone opens; None when there is none."""


def new_kek(randomness: Randomness) -> KeyEncryptionKey:
    return KeyEncryptionKey(randomness.bytes(KEY_BYTES))


def new_passphrase_parameters(randomness: Randomness) -> PassphraseParameters:
    """For a new passphrase: a fresh salt and today's costs."""
    salt = randomness.bytes(_PASSPHRASE_SALT_BYTES)
    return PassphraseParameters(salt, _PASSES_DEFAULT, _MEMORY_DEFAULT_KIB, _LANES_DEFAULT)


def kek_from_passphrase(passphrase: str, parameters: PassphraseParameters) -> KeyEncryptionKey:
    """Takes a fraction of a second and `memory_kib`: call it from a thread. Raises InvalidRequest when it is empty."""
    secret = unicodedata.normalize("NFC", passphrase).encode()
    if not secret:
        raise InvalidRequest("a passphrase cannot be empty")
    key = argon2.low_level.hash_secret_raw(
        secret,
        parameters.salt,
        time_cost=parameters.passes,
        memory_cost=parameters.memory_kib,
        parallelism=parameters.lanes,
        hash_len=KEY_BYTES,
        type=argon2.low_level.Type.ID,
        version=0x13,
    )
    return KeyEncryptionKey(key, parameters)


def encode_kek_file(kek: KeyEncryptionKey) -> bytes:
    """The text of a key file: a header line, and a line of 32 bytes and a 4-byte checksum in base64."""
    assert kek.passphrase is None, "a key that a passphrase makes is not written down"
    assert kek.kms is None, "a key that a service keeps is not written down"
    return _FILE_HEADER + base64.b64encode(kek.key + _checksum(kek.key)[:_FILE_CHECKSUM_BYTES]) + b"\n"


def decode_kek_file(data: bytes) -> KeyEncryptionKey:
    """Raises Corrupt."""
    if not data.startswith(_FILE_HEADER):
        raise Corrupt("not a key file of this version")
    try:
        raw = base64.b64decode(data[len(_FILE_HEADER) :].removesuffix(b"\n"), validate=True)
    except binascii.Error:
        raise Corrupt("a key file is damaged") from None
    kek = KeyEncryptionKey(raw[:KEY_BYTES])
    if len(raw) != KEY_BYTES + _FILE_CHECKSUM_BYTES or encode_kek_file(kek) != data.removesuffix(b"\n") + b"\n":
        raise Corrupt("a key file is damaged")
    return kek


class _PassphraseDocument(msgspec.Struct, array_like=True, frozen=True, tag="argon2id"):
    salt: bytes
    passes: int
    memory_kib: int
    lanes: int


class _KmsDocument(msgspec.Struct, array_like=True, frozen=True, tag="kms"):
    ciphertext: str


class _HeaderDocument(msgspec.Struct, array_like=True, frozen=True):
    """The wrapping's clear part, and its associated data."""

    source: _PassphraseDocument | _KmsDocument | None
    salt: bytes
    commitment: bytes


class _WrappedDocument(msgspec.Struct, array_like=True, frozen=True):
    version: int
    header: bytes
    ciphertext: bytes
    checksum: bytes


_header_decoder = msgspec.msgpack.Decoder(_HeaderDocument)
_wrapped_decoder = msgspec.msgpack.Decoder(_WrappedDocument)


def wrap_keyring(keyring: Keyring, kek: KeyEncryptionKey, randomness: Randomness) -> bytes:
    """The keyring sealed under `kek`: safe to store wherever the KEK is not."""
    salt = randomness.bytes(_SALT_BYTES)
    secret = derive(kek.key + salt, Context.KEYRING, KEY_BYTES + _COMMITMENT_BYTES)
    header = msgspec.msgpack.encode(_HeaderDocument(_source(kek), salt, secret[KEY_BYTES:]))
    ciphertext = seal_once(secret[:KEY_BYTES], encode_keyring(keyring), header)
    return msgspec.msgpack.encode(_WrappedDocument(VERSION, header, ciphertext, _checksum(header + ciphertext)))


def _source(kek: KeyEncryptionKey) -> _PassphraseDocument | _KmsDocument | None:
    parameters = kek.passphrase
    if parameters is not None:
        return _PassphraseDocument(parameters.salt, parameters.passes, parameters.memory_kib, parameters.lanes)
    return _KmsDocument(kek.kms) if kek.kms is not None else None


def passphrase_parameters(wrapped: Buffer) -> PassphraseParameters | None:
    """How to make the KEK from a passphrase; None when it is not made from one. Raises Corrupt."""
    return _decode_wrapped(wrapped)[2]


def kms_ciphertext(wrapped: Buffer) -> str | None:
    """The KEK as a key management service sealed it; None when none did. Raises Corrupt."""
    source = _decode_wrapped(wrapped)[1].source
    return source.ciphertext if isinstance(source, _KmsDocument) else None


def unwrap_keyring(wrapped: Buffer, kek: KeyEncryptionKey) -> Keyring:
    """Raises AccessDenied for another key or passphrase than it was wrapped with, Corrupt for damage."""
    document, header, _ = _decode_wrapped(wrapped)
    secret = derive(kek.key + header.salt, Context.KEYRING, KEY_BYTES + _COMMITMENT_BYTES)
    if not compare_digest(secret[KEY_BYTES:], header.commitment):
        raise AccessDenied("this key or passphrase does not open the keyring")
    return decode_keyring(open_once(secret[:KEY_BYTES], document.ciphertext, document.header))


def _decode_wrapped(wrapped: Buffer) -> tuple[_WrappedDocument, _HeaderDocument, PassphraseParameters | None]:
    try:
        document = _wrapped_decoder.decode(wrapped)
        if document.version != VERSION:
            raise Corrupt(f"a wrapped keyring is of version {document.version}, which this version does not know")
        header = _header_decoder.decode(document.header)
        source, parameters = header.source, None
        if isinstance(source, _PassphraseDocument):
            parameters = PassphraseParameters(source.salt, source.passes, source.memory_kib, source.lanes)
        if isinstance(source, _KmsDocument) and not 0 < len(source.ciphertext) <= KMS_CIPHERTEXT_MAX_CHARACTERS:
            raise Corrupt("a wrapped keyring names no key of a service")
    except (*UNDECODABLE, InvalidRequest) as error:
        raise Corrupt("a wrapped keyring cannot be decoded") from error
    if (
        document.checksum != _checksum(document.header + document.ciphertext)
        or len(header.salt) != _SALT_BYTES
        or msgspec.msgpack.encode(document) != bytes(wrapped)
    ):
        raise Corrupt("the wrapped keyring is damaged")
    return document, header, parameters


def _checksum(data: bytes) -> bytes:
    """Against rot only: it travels beside what it is computed from."""
    return blake3(data).digest(_CHECKSUM_BYTES)
