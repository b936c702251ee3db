"""Nodes: one encoding, every field checked, no input of any kind crashes the decoder."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.core.ids import BlockId
from holdfast.core.limits import BLOCK_MAX_BYTES, MIB, SEALED_BLOCK_MAX_BYTES
from holdfast.crypto.blocks import OVERHEAD_BYTES, BlockSealer, padded_length
from holdfast.crypto.derive import Context, derive
from holdfast.erasure import BlockRef, Code, copies, erasure
from holdfast.tree.entry import walk_key
from holdfast.tree.node import FANOUT, Child, Node, open_node, seal_node
from tests.unit.crypto.chance import FixedRandomness

KEY = bytes(range(32))
NODE_KEY = derive(walk_key(KEY), Context.NODE_BLOCK)


def children(
    level: int, lengths: Sequence[int], code: Code | None = None, sealed_length: int = 1000, start: int = 7
) -> list[Child]:
    chance = FixedRandomness("children")
    made = []
    for length in lengths:
        ref = BlockRef(BlockId(chance.bytes(32)), code or erasure(4, 2), sealed_length)
        made.append(Child(ref, level, start, length, chance.bytes(32)))
        start += length
    return made


def plain_of(sealed: bytes) -> bytes:
    return BlockSealer().open(NODE_KEY, sealed, len(sealed) - OVERHEAD_BYTES)


@given(
    st.integers(0, 3),
    st.lists(st.integers(1, BLOCK_MAX_BYTES), min_size=1, max_size=40),
    st.sampled_from([copies(3), erasure(4, 2), erasure(20, 12)]),
)
def test_round_trip(level: int, lengths: list[int], code: Code) -> None:
    under = children(level, lengths, code)
    sealed = seal_node(BlockSealer(), KEY, under)
    node = open_node(BlockSealer(), walk_key(KEY), sealed, level=level + 1, size=sum(lengths))
    keys = node.keys(KEY)
    for index, child in enumerate(under):
        assert node.ref(index) == child.ref
        assert node.length(index) == child.length
        assert node.start(index) == child.start - 7
        assert node.covering(node.start(index)) == node.covering(node.start(index) + child.length - 1) == index
        assert keys[index * 32 : index * 32 + 32] == child.key
        if level:
            assert node.walk_key(index) == walk_key(child.key)


def test_a_full_node_is_far_below_a_block() -> None:
    for level in (0, 1):
        assert len(seal_node(BlockSealer(), KEY, children(level, [MIB] * FANOUT))) < 128 * 1024


@pytest.mark.parametrize("level", [0, 1])
def test_every_flipped_byte_is_caught(level: int) -> None:
    sealed = seal_node(BlockSealer(), KEY, children(level, [5, 6, 7]))
    sealer = BlockSealer()
    for at in range(len(sealed)):
        broken = bytearray(sealed)
        broken[at] ^= 0x01
        with pytest.raises(Corrupt):
            open_node(sealer, walk_key(KEY), broken, level=level + 1, size=18)


@pytest.mark.parametrize("level", [0, 1])
def test_every_byte_that_a_holder_of_the_walk_key_changes_is_caught_by_a_reader(level: int) -> None:
    """Whoever walks can seal a node anew; a reader still notices, because the read part is bound to the walk part."""
    sealer = BlockSealer()
    plain = plain_of(seal_node(sealer, KEY, children(level, [5, 6, 7])))
    for at in range(len(plain)):
        broken = bytearray(plain)
        broken[at] ^= 0x01
        forged = sealer.seal(NODE_KEY, bytes(broken), compress=False)
        with pytest.raises(Corrupt):
            open_node(sealer, walk_key(KEY), forged, level=level + 1, size=18).keys(KEY)


def test_another_level_or_size_than_the_parent_gives_is_caught() -> None:
    sealed = seal_node(BlockSealer(), KEY, children(0, [5, 6, 7]))
    for level, size in [(1, 17), (1, 19), (2, 18), (0, 18), (3, 18)]:
        with pytest.raises(Corrupt):
            open_node(BlockSealer(), walk_key(KEY), sealed, level=level, size=size)


def test_contradictions_are_caught_even_when_they_are_sealed_well() -> None:
    ok = children(0, [5, 6, 7])
    Node(plain_of(seal_node(BlockSealer(), KEY, ok)))
    for wrong in (
        children(0, [5, 0, 7]),
        children(0, [0, 5]),
        children(0, [BLOCK_MAX_BYTES + 1]),
        children(0, [5], sealed_length=0),
        children(0, [5], sealed_length=SEALED_BLOCK_MAX_BYTES + 1),
    ):
        with pytest.raises(Corrupt):
            Node(plain_of(seal_node(BlockSealer(), KEY, wrong)))


@given(st.binary(max_size=2000))
def test_noise_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        Node(data)


@given(
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 1200),
    st.integers(0, 100_000),
    st.integers(0, 255),
    st.booleans(),
)
def test_headers_of_all_kinds_never_crash(
    version: int, level: int, count: int, length: int, fill: int, fits: bool
) -> None:
    header = bytes((version % 3, level % 20)) + count.to_bytes(2, "little")
    per_child = 8 + 4 + 3 + 32 + 32 + (32 if level % 20 > 1 else 0)
    if fits:
        length = padded_length(4 + per_child * count + 16)
    try:
        Node(header + bytes([fill]) * (length - 4))
    except Corrupt:
        pass


@given(st.binary(max_size=1500))
def test_sealed_noise_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt):
        open_node(BlockSealer(), walk_key(KEY), data, level=1, size=18)
