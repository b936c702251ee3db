"""Tags: the owner reads them, nobody else does or makes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.core.ids import BlockId, ContentId, StoreId
from holdfast.crypto.keyring import Purpose, new_keyring, rotated
from holdfast.crypto.tags import TAG_BYTES, Tag, TagOpener
from holdfast.drives.interface import TAG_MAX_BYTES
from tests.unit.crypto.chance import FixedRandomness

CHANCE = FixedRandomness("tags")
KEYRING = new_keyring(StoreId(bytes(16)), CHANCE)
CONTENT = ContentId(bytes(range(16)))
BLOCK = BlockId(bytes(range(32)))


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
def test_round_trip(content: bytes, position: int, block: bytes) -> None:
    tag = KEYRING.tag_sealer(CHANCE).seal(ContentId(content), position, BlockId(block))
    assert len(tag) == TAG_BYTES <= TAG_MAX_BYTES
    assert KEYRING.tag_opener().open(tag) == Tag(ContentId(content), position, BlockId(block), 1)


def test_every_flipped_byte_and_cut_is_caught() -> None:
    tag = KEYRING.tag_sealer(CHANCE).seal(CONTENT, 7, BLOCK)
    opener = KEYRING.tag_opener()
    for at in range(len(tag)):
        flipped = bytearray(tag)
        flipped[at] ^= 0x01
        for broken in (flipped, tag[:at], tag[at + 1 :]):
            with pytest.raises(Corrupt):
                opener.open(broken)


def test_the_content_cannot_be_seen() -> None:
    tag = KEYRING.tag_sealer(CHANCE).seal(CONTENT, 7, BLOCK)
    assert tag.find(CONTENT) < 0
    assert tag.find(BLOCK) < 0
    assert tag != KEYRING.tag_sealer(CHANCE).seal(CONTENT, 7, BLOCK)


def test_another_stores_tag_is_corrupt() -> None:
    other = new_keyring(StoreId(bytes(16)), CHANCE)
    with pytest.raises(Corrupt):
        KEYRING.tag_opener().open(other.tag_sealer(CHANCE).seal(CONTENT, 7, BLOCK))


def test_an_envelope_of_another_length_is_corrupt() -> None:
    """Sealed by ourselves, and not a tag of this version."""
    for message in (b"", bytes(55), bytes(57)):
        with pytest.raises(Corrupt):
            KEYRING.tag_opener().open(KEYRING.sealer(Purpose.TAG, CHANCE).seal(message, b""))


def test_tags_of_older_epochs_open_until_they_are_retired() -> None:
    tag = KEYRING.tag_sealer(CHANCE).seal(CONTENT, 7, BLOCK)
    newer = rotated(KEYRING, CHANCE)
    assert newer.tag_opener().open(tag).epoch == 1
    assert newer.tag_opener().open(newer.tag_sealer(CHANCE).seal(CONTENT, 7, BLOCK)).epoch == 2


def test_a_tag_opener_opens_nothing_else() -> None:
    for purpose in (Purpose.METADATA, Purpose.READ, Purpose.WALK):
        sealed = KEYRING.sealer(purpose, CHANCE).seal(bytes(56), b"")
        with pytest.raises(Corrupt):
            TagOpener(KEYRING.opener(Purpose.TAG)).open(sealed)
