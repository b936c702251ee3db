"""Whatever a drive answers, only what the block's id commits to comes out."""

import pytest
from msgspec.structs import replace

from holdfast.cluster.proof import check_part, prove
from holdfast.core.errors import Corrupt
from holdfast.core.limits import LEAF_BYTES
from holdfast.drives.interface import FragmentKey, FragmentPart
from holdfast.erasure import BlockRef, CodedBlock, Commitment, block_id, decode_commitment, encode, erasure
from tests.unit.erasure.sample import sealed

BLOCK = sealed(4 * LEAF_BYTES + 5000)


def part_of(coded: CodedBlock, index: int) -> FragmentPart:
    payload = coded.payloads[index]
    key = FragmentKey(coded.ref.id, index)
    return FragmentPart(key, coded.commitment, coded.leaves[index], b"", len(payload), 0, payload)


def test_k_good_parts_are_the_block() -> None:
    coded = encode(BLOCK, erasure(4, 2))
    proven = prove(coded.ref, {index: part_of(coded, index) for index in (5, 1, 4, 0)})
    assert proven.sealed is not None
    assert bytes(proven.sealed) == BLOCK
    assert proven.bad == {}
    assert prove(coded.ref, {index: part_of(coded, index) for index in (5, 1, 4)}).sealed is None


def test_every_field_of_a_part_is_checked() -> None:
    coded, other = encode(BLOCK, erasure(4, 2)), encode(sealed(len(BLOCK), 1), erasure(4, 2))
    good = part_of(coded, 2)
    check_part(coded.ref, 2, good)
    cut = bytes(good.data[:LEAF_BYTES])
    wrong = [
        replace(good, commitment=other.commitment),
        replace(good, commitment=good.commitment[:-1]),
        replace(good, leaves=other.leaves[2]),
        replace(good, data=other.payloads[2]),
        replace(good, data=cut),
        replace(good, data=cut, length=LEAF_BYTES),
        replace(good, start=LEAF_BYTES),
        replace(good, length=good.length + 1),
        part_of(coded, 3),
        part_of(other, 2),
    ]
    for part in wrong:
        with pytest.raises(Corrupt):
            check_part(coded.ref, 2, part)
        parts = {0: part_of(coded, 0), 1: part_of(coded, 1), 2: part, 3: part_of(coded, 3), 4: part_of(coded, 4)}
        proven = prove(coded.ref, parts)
        assert set(proven.bad) == {2}
        assert proven.sealed is not None
        assert bytes(proven.sealed) == BLOCK


def test_fragments_that_were_committed_to_but_contradict_each_other_are_no_block() -> None:
    """A writer who commits to the parity of another block: each fragment is good, and still nothing is returned."""
    ours, theirs = encode(BLOCK, erasure(4, 2)), encode(sealed(len(BLOCK), 1), erasure(4, 2))
    roots = decode_commitment(ours.commitment).roots[:4] + decode_commitment(theirs.commitment).roots[4:]
    forged = Commitment(ours.ref.code, ours.ref.length, roots).encode()
    ref = BlockRef(block_id(forged), ours.ref.code, ours.ref.length)
    mixed = replace(ours, ref=ref, commitment=forged, payloads=ours.payloads[:4] + theirs.payloads[4:])
    mixed = replace(mixed, leaves=ours.leaves[:4] + theirs.leaves[4:])
    for index in range(6):
        check_part(ref, index, part_of(mixed, index))
    with pytest.raises(Corrupt):
        prove(ref, {index: part_of(mixed, index) for index in (0, 1, 2, 4)})
