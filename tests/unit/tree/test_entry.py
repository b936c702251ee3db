"""Root entries, walk roots and links: one encoding each, and every change is caught."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import BlockId, ContentId, StoreId
from holdfast.core.limits import SEALED_BLOCK_MAX_BYTES
from holdfast.crypto.keyring import Purpose, new_keyring
from holdfast.erasure import BlockRef, copies, erasure
from holdfast.tree import (
    Link,
    RootEntry,
    decode_link,
    decode_root,
    decode_walk_root,
    encode_link,
    encode_root,
    encode_walk_root,
    unwrap_root,
    unwrap_walk_root,
    wrap_root,
    wrap_walk_root,
)
from holdfast.tree.entry import DEPTH_MAX, ENTRY_BYTES, LINK_WHERE_MAX_BYTES
from holdfast.tree.store import SIZE_MAX_BYTES
from tests.unit.crypto.chance import FixedRandomness

CHANCE = FixedRandomness("entry")
KEYRING = new_keyring(StoreId(bytes(16)), CHANCE)
CONTENT = ContentId(b"0123456789abcdef")
ROOT = RootEntry(BlockRef(BlockId(bytes(range(32))), erasure(4, 2), 1_048_626), 5 * 2**40, 3, bytes(range(100, 132)))


def roots() -> st.SearchStrategy[RootEntry]:
    codes = st.one_of(
        st.builds(copies, st.integers(1, 7)),
        st.integers(1, 31).flatmap(lambda k: st.builds(erasure, st.just(k), st.integers(1, 32 - k))),
    )
    refs = st.builds(
        BlockRef,
        st.binary(min_size=32, max_size=32).map(BlockId),
        codes,
        st.integers(1, SEALED_BLOCK_MAX_BYTES),
    )
    keys = st.binary(min_size=32, max_size=32)
    return st.builds(RootEntry, refs, st.integers(0, SIZE_MAX_BYTES), st.integers(0, DEPTH_MAX), keys)


@given(roots(), st.binary(max_size=LINK_WHERE_MAX_BYTES))
def test_round_trips(root: RootEntry, where: bytes) -> None:
    assert decode_root(encode_root(root)) == root
    walker = root.walk_root()
    assert decode_walk_root(encode_walk_root(walker)) == walker
    text = encode_link(Link(root, where))
    assert len(text) <= 300
    assert decode_link(text) == Link(root, where)
    assert unwrap_root(wrap_root(root, CONTENT, KEYRING.sealer(Purpose.READ, CHANCE)), CONTENT, READ) == root
    assert (
        unwrap_walk_root(wrap_walk_root(root, CONTENT, KEYRING.sealer(Purpose.WALK, CHANCE)), CONTENT, WALK) == walker
    )


READ = KEYRING.opener(Purpose.READ)
WALK = KEYRING.opener(Purpose.WALK)


def test_a_walk_root_does_not_tell_the_read_key() -> None:
    assert ROOT.key not in encode_walk_root(ROOT.walk_root())
    assert repr(ROOT.key) not in repr(ROOT)
    assert repr(ROOT.walk_root().key) not in repr(ROOT.walk_root())


def test_the_kinds_do_not_pass_for_each_other() -> None:
    with pytest.raises(Corrupt):
        decode_walk_root(encode_root(ROOT))
    with pytest.raises(Corrupt):
        decode_root(encode_walk_root(ROOT.walk_root()))
    wrapped = wrap_root(ROOT, CONTENT, KEYRING.sealer(Purpose.READ, CHANCE))
    walking = wrap_walk_root(ROOT, CONTENT, KEYRING.sealer(Purpose.WALK, CHANCE))
    for broken, opener in ((wrapped, WALK), (walking, READ)):
        with pytest.raises(Corrupt):
            unwrap_root(broken, CONTENT, opener)
        with pytest.raises(Corrupt):
            unwrap_walk_root(broken, CONTENT, opener)


def test_a_wrapped_root_moved_to_another_content_is_caught() -> None:
    wrapped = wrap_root(ROOT, CONTENT, KEYRING.sealer(Purpose.READ, CHANCE))
    with pytest.raises(Corrupt):
        unwrap_root(wrapped, ContentId(bytes(16)), READ)


def test_every_flipped_byte_and_cut_of_a_wrapped_root_is_caught() -> None:
    wrapped = wrap_root(ROOT, CONTENT, KEYRING.sealer(Purpose.READ, CHANCE))
    for at in range(len(wrapped)):
        broken = bytearray(wrapped)
        broken[at] ^= 0x40
        for wrong in (broken, wrapped[:at], wrapped[at + 1 :]):
            with pytest.raises(Corrupt):
                unwrap_root(wrong, CONTENT, READ)


def test_what_is_beyond_the_limits_is_corrupt() -> None:
    for wrong in (
        replace(ROOT, size=SIZE_MAX_BYTES + 1),
        replace(ROOT, depth=DEPTH_MAX + 1),
        replace(ROOT, ref=msgspec.structs.replace(ROOT.ref, length=0)),
        replace(ROOT, ref=msgspec.structs.replace(ROOT.ref, length=SEALED_BLOCK_MAX_BYTES + 1)),
    ):
        with pytest.raises(Corrupt):
            decode_root(encode_root(wrong))


@given(st.binary(min_size=ENTRY_BYTES - 1, max_size=ENTRY_BYTES + 1))
def test_noise_never_crashes_and_what_decodes_encodes_the_same(data: bytes) -> None:
    for bytes_ in (data, b"\x01\x01" + data[2:], b"\x01\x01" + data[2:34] + b"\x01\x04\x02" + data[37:]):
        try:
            root = decode_root(bytes_)
        except Corrupt:
            continue
        assert encode_root(root) == bytes_


def test_every_slip_in_a_link_is_caught() -> None:
    text = encode_link(Link(ROOT, b"some group"))
    for at in range(len(text)):
        wrong = "B" if text[at] == "A" else "A"
        for broken in (text[:at] + wrong + text[at + 1 :], text[:at], text[:at] + text[at + 1 :], text[:at] + "é"):
            with pytest.raises(InvalidRequest):
                decode_link(broken)
    for broken in (text + "=", text + "A", " " + text, text + "\n", text.upper(), ""):
        with pytest.raises(InvalidRequest):
            decode_link(broken)


def test_a_link_error_does_not_quote_the_link() -> None:
    text = encode_link(Link(ROOT))
    with pytest.raises(InvalidRequest) as caught:
        decode_link(text[:-1])
    assert text[20:40] not in str(caught.value)


def test_a_link_that_says_too_much_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        encode_link(Link(ROOT, bytes(LINK_WHERE_MAX_BYTES + 1)))
