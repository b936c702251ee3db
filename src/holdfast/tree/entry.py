"""Root entries: what names a tree, in 82 bytes. docs/formats/entry.md is the specification.

- A `RootEntry` holds the read key: who has it reads everything below.
- A `WalkRoot` is the same with the walk key in its place: who has it finds every block and reads none.
- In rows each is an envelope, under the keyring's read-wrap or walk-wrap key, bound to the id of its content.
- A `Link` is a root entry written out for people to pass on: a bearer secret.

Every form has one encoding: what decodes, encodes to the same bytes.
"""

import base64
import binascii
import struct
from dataclasses import dataclass, field

from blake3 import blake3
from msgspec import Struct

from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import BLOCK_ID_BYTES, BlockId, Buffer, ContentId
from holdfast.core.limits import SEALED_BLOCK_MAX_BYTES
from holdfast.crypto.derive import KEY_BYTES, Context, derive
from holdfast.crypto.envelope import EnvelopeOpener, EnvelopeSealer
from holdfast.erasure.code import BlockRef, Code
from holdfast.erasure.commitment import MATRICES, MATRIX_NUMBERS
from holdfast.tree.store import SIZE_MAX_BYTES

VERSION = 1

_READ = 1
_WALK = 2

_ENTRY = struct.Struct(f"<BB{BLOCK_ID_BYTES}sBBBIQB{KEY_BYTES}s")
ENTRY_BYTES = _ENTRY.size

# 1,024 ** 3 data blocks of a mebibyte are a pebibyte; volumes of 4 KiB blocks need one level more. A decoder's bound.
DEPTH_MAX = 16

_LINK_PREFIX = "holdfast:1:"
_LINK_CHECKSUM_BYTES = 4
# So that a link stays below 300 characters.
LINK_WHERE_MAX_BYTES = 120


@dataclass(frozen=True, slots=True)
class RootEntry:
    """Names a tree and opens it."""

    ref: BlockRef
    """The root block: the only data block when `depth` is 0."""
    size: int
    """Plain bytes of the whole tree."""
    depth: int
    """Levels of inner nodes."""
    key: bytes = field(repr=False)
    """The root's read key R; for depth 0 the data block's own key."""

    def walk_root(self) -> "WalkRoot":
        """The form for who may walk and not read."""
        return WalkRoot(self.ref, self.size, self.depth, walk_key(self.key))


@dataclass(frozen=True, slots=True)
class WalkRoot:
    """Names a tree and opens the walk parts of its nodes."""

    ref: BlockRef
    size: int
    depth: int
    key: bytes = field(repr=False)
    """The root's walk key W. Says nothing of R."""


class Link(Struct, frozen=True):
    """A root entry and how to find its blocks."""

    root: RootEntry
    where: bytes = b""
    """Opaque here: at most LINK_WHERE_MAX_BYTES that tell in which group to look."""


def walk_key(read_key: bytes) -> bytes:
    """W of R. There is no way back."""
    return derive(read_key, Context.WALK_KEY)


def encode_code(code: Code) -> bytes:
    """Matrix, k, m: three bytes."""
    return bytes((MATRIX_NUMBERS[code.matrix], code.k, code.m))


def decode_code(data: bytes) -> Code:
    """Raises Corrupt."""
    number, k, m = data
    try:
        return Code(MATRICES[number], k, m)
    except (KeyError, InvalidRequest) as error:
        raise Corrupt("an entry names an impossible code") from error


def encode_root(root: RootEntry) -> bytes:
    """ENTRY_BYTES, the read key in the clear."""
    return _encode(_READ, root)


def decode_root(data: Buffer) -> RootEntry:
    """Raises Corrupt."""
    return RootEntry(*_decode(_READ, data))


def encode_walk_root(root: WalkRoot) -> bytes:
    """ENTRY_BYTES, the walk key in the clear."""
    return _encode(_WALK, root)


def decode_walk_root(data: Buffer) -> WalkRoot:
    """Raises Corrupt."""
    return WalkRoot(*_decode(_WALK, data))


def wrap_root(root: RootEntry, content: ContentId, sealer: EnvelopeSealer) -> bytes:
    """For a content's row. `sealer` is of `Purpose.READ`."""
    return sealer.seal(encode_root(root), content)


def unwrap_root(wrapped: Buffer, content: ContentId, opener: EnvelopeOpener) -> RootEntry:
    """Raises Corrupt, also when it was wrapped for another content."""
    return decode_root(opener.open(wrapped, content))


def wrap_walk_root(root: RootEntry, content: ContentId, sealer: EnvelopeSealer) -> bytes:
    """For a content's row. `sealer` is of `Purpose.WALK`."""
    return sealer.seal(encode_walk_root(root.walk_root()), content)


def unwrap_walk_root(wrapped: Buffer, content: ContentId, opener: EnvelopeOpener) -> WalkRoot:
    """Raises Corrupt, also when it was wrapped for another content."""
    return decode_walk_root(opener.open(wrapped, content))


def encode_link(link: Link) -> str:
    """At most 300 characters, safe in URLs and shells. Whoever sees it can read the tree."""
    if len(link.where) > LINK_WHERE_MAX_BYTES:
        raise InvalidRequest(f"a link says where to look in {LINK_WHERE_MAX_BYTES} bytes at most")
    body = encode_root(link.root) + link.where
    return _LINK_PREFIX + base64.urlsafe_b64encode(body + _link_checksum(body)).decode().rstrip("=")


def decode_link(text: str) -> Link:
    """Raises InvalidRequest: a link is typed, mailed and cut by people. The message does not quote it."""
    try:
        if not text.startswith(_LINK_PREFIX):
            raise InvalidRequest("not a link of this version")
        encoded = text[len(_LINK_PREFIX) :].encode("ascii")
        raw = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
        body = raw[:-_LINK_CHECKSUM_BYTES]
        link = Link(decode_root(body[:ENTRY_BYTES]), body[ENTRY_BYTES:])
    except (UnicodeEncodeError, binascii.Error, Corrupt):
        raise InvalidRequest("a link is damaged: was it copied whole?") from None
    # Written out again it must be the same: that holds the checksum, too.
    if encode_link(link) != text:
        raise InvalidRequest("a link is damaged: was it copied whole?")
    return link


def _encode(kind: int, root: RootEntry | WalkRoot) -> bytes:
    code = root.ref.code
    return _ENTRY.pack(
        VERSION,
        kind,
        root.ref.id,
        MATRIX_NUMBERS[code.matrix],
        code.k,
        code.m,
        root.ref.length,
        root.size,
        root.depth,
        root.key,
    )


def _decode(kind: int, data: Buffer) -> tuple[BlockRef, int, int, bytes]:
    if len(data) != ENTRY_BYTES:
        raise Corrupt(f"a root entry of {len(data)} bytes")
    version, found, block, matrix, k, m, length, size, depth, key = _ENTRY.unpack(data)
    if version != VERSION or found != kind:
        raise Corrupt(f"a root entry of version {version} and kind {found}")
    if not 0 < length <= SEALED_BLOCK_MAX_BYTES or size > SIZE_MAX_BYTES or depth > DEPTH_MAX:
        raise Corrupt("a root entry is beyond the limits")
    return BlockRef(BlockId(block), decode_code(bytes((matrix, k, m))), length), size, depth, key


def _link_checksum(body: bytes) -> bytes:
    """Against slips of the hand only."""
    return blake3(body).digest(_LINK_CHECKSUM_BYTES)
