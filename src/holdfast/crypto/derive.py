"""Keys from keys, one way, by BLAKE3's derive_key mode.

A context names one use of one kind of key, is fixed for ever, and appears in this file only: so two uses never get
the same key by accident, and the whole tree of keys can be read in one place.
"""

from enum import StrEnum

from blake3 import blake3

KEY_BYTES = 32
"""Every symmetric key of the product: AES-256, and the input of derivation."""


class Context(StrEnum):
    """What a derived key is for. The strings are part of the formats."""

    BLOCK = "holdfast 2026-11 block: AES-256-GCM key and commitment"
    ROW = "holdfast 2026-11 metadata row: AES-256-GCM key and commitment"
    READ_WRAP = "holdfast 2026-11 wrapped read key: AES-256-GCM key and commitment"
    WALK_WRAP = "holdfast 2026-11 wrapped walk key: AES-256-GCM key and commitment"
    TAG = "holdfast 2026-11 fragment tag: AES-256-GCM key and commitment"
    KEYRING = "holdfast 2026-11 wrapped keyring: AES-256-GCM key and commitment"
    FINGERPRINT = "holdfast 2026-11 keyring fingerprint"
    WALK_KEY = "holdfast 2026-11 read key to walk key"
    NODE_BLOCK = "holdfast 2026-11 walk key to node block key"
    NODE_READ_PART = "holdfast 2026-11 read key to node read-part key"


def derive(key: bytes, context: Context, length: int = KEY_BYTES) -> bytes:
    """`length` bytes that tell nothing of `key`, and that only who holds `key` can compute."""
    return blake3(key, derive_key_context=context.value).digest(length)
