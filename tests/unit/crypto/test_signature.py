"""Signatures: over one document of one kind by one key."""

import pytest

from holdfast.core.errors import Corrupt
from holdfast.crypto.signature import LAYOUT, PUBLIC_KEY_BYTES, SIGNATURE_BYTES, public_key, sign, verify

SEED = bytes(range(32))
DOCUMENT = b"a layout"


def test_what_was_signed_verifies() -> None:
    signature = sign(SEED, LAYOUT, DOCUMENT)
    assert len(signature) == SIGNATURE_BYTES
    assert len(public_key(SEED)) == PUBLIC_KEY_BYTES
    assert signature == sign(SEED, LAYOUT, DOCUMENT)
    verify(public_key(SEED), LAYOUT, DOCUMENT, signature)


def test_everything_else_does_not() -> None:
    signature = sign(SEED, LAYOUT, DOCUMENT)
    public = public_key(SEED)
    for wrong in (
        (public_key(bytes(32)), LAYOUT, DOCUMENT, signature),
        (public, "holdfast roster 1", DOCUMENT, signature),
        (public, LAYOUT, DOCUMENT + b"\0", signature),
        (public, LAYOUT[:-1], LAYOUT[-1:].encode() + DOCUMENT, signature),
        (public, LAYOUT, DOCUMENT, signature[:-1]),
        (public, LAYOUT, DOCUMENT, b""),
        (public[:-1], LAYOUT, DOCUMENT, signature),
    ):
        with pytest.raises(Corrupt):
            verify(*wrong)
    for at in range(SIGNATURE_BYTES):
        flipped = bytearray(signature)
        flipped[at] ^= 0x01
        with pytest.raises(Corrupt):
            verify(public, LAYOUT, DOCUMENT, bytes(flipped))
