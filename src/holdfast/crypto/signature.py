"""Ed25519 signatures of a group over its documents: layouts now, rosters with the networked nodes.

The signed bytes are the document's kind, a NUL and the document: a signature over one kind says nothing of another.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from holdfast.core.errors import Corrupt

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32

LAYOUT = "holdfast layout 1"
"""The kind of a layout's signature."""


def public_key(seed: bytes) -> bytes:
    """The key that verifies what `seed`, a keyring's `signing_seed`, signs."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def sign(seed: bytes, kind: str, document: bytes) -> bytes:
    """SIGNATURE_BYTES. Deterministic: the same document gives the same signature."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(_message(kind, document))


def verify(public: bytes, kind: str, document: bytes, signature: bytes) -> None:
    """Raises Corrupt unless the holder of `public`'s seed signed this document as this kind."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _message(kind, document))
    except (InvalidSignature, ValueError):
        raise Corrupt("a signature does not hold") from None


def _message(kind: str, document: bytes) -> bytes:
    return kind.encode() + b"\0" + document
