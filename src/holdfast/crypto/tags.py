"""Tags: what a fragment's record says of its owner's content, readable by the owner only. docs/formats/tag.md.

A tag travels beside a fragment on drives and nodes that are trusted with nothing. It names the block too, so that a
tag moved to another block's fragment is noticed by whoever compares. Upkeep is handed a `TagOpener` and no other key.
"""

import struct

from msgspec import Struct

from holdfast.core.errors import Corrupt
from holdfast.core.ids import BLOCK_ID_BYTES, RANDOM_ID_BYTES, BlockId, Buffer, ContentId
from holdfast.crypto.envelope import OVERHEAD_BYTES, EnvelopeOpener, EnvelopeSealer, epoch_of

_MESSAGE = struct.Struct(f"<{RANDOM_ID_BYTES}sQ{BLOCK_ID_BYTES}s")

TAG_BYTES = OVERHEAD_BYTES + _MESSAGE.size
"""Every tag of version 1 is this long."""

# Drives keep a tag's length in one byte.
assert TAG_BYTES <= 255

# A tag belongs to no row; what it is comes from the key's context.
_ASSOCIATED = b""


class Tag(Struct, frozen=True):
    """What an opened tag says."""

    content: ContentId
    position: int
    """Where in the content's tree the block hangs: `tree.position`."""
    block: BlockId
    """The block that this tag was made for: of another block's fragment it says nothing."""
    epoch: int
    """The keyring's epoch that it was sealed under."""


class TagSealer:
    """Makes tags. May be called from any thread."""

    def __init__(self, sealer: EnvelopeSealer) -> None:
        self._sealer = sealer

    def seal(self, content: ContentId, position: int, block: BlockId) -> bytes:
        """The tag of a block, TAG_BYTES long. `position` is at most 64 bits."""
        assert len(content) == RANDOM_ID_BYTES
        assert len(block) == BLOCK_ID_BYTES
        return self._sealer.seal(_MESSAGE.pack(content, position, block), _ASSOCIATED)


class TagOpener:
    """Opens tags. May be called from any thread."""

    def __init__(self, opener: EnvelopeOpener) -> None:
        self._opener = opener

    def open(self, tag: Buffer) -> Tag:
        """Raises Corrupt when the tag was not sealed by this store. The caller compares `block` with the fragment's."""
        message = self._opener.open(tag, _ASSOCIATED)
        if len(message) != _MESSAGE.size:
            raise Corrupt("a tag's message has another length than version 1 gives it")
        content, position, block = _MESSAGE.unpack(message)
        return Tag(ContentId(content), position, BlockId(block), epoch_of(tag))
