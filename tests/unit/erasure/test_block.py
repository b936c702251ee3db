"""Encode, decode, rebuild: against the reference, against pyeclib, and with every loss."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyeclib.ec_iface import ECDriver

from holdfast.core.errors import Corrupt, InvalidRequest, NotEnoughFragments
from holdfast.core.ids import Buffer
from holdfast.core.limits import LEAF_BYTES, SEALED_BLOCK_MAX_BYTES
from holdfast.erasure import (
    Code,
    Room,
    code_for,
    copies,
    decode,
    encode,
    erasure,
    open_commitment,
    payload_bytes,
    rebuild,
)
from holdfast.erasure.code import VANDERMONDE_K_MAX, BlockRef, Matrix
from tests.unit.erasure import reference
from tests.unit.erasure.sample import code, sealed

SHAPES = [
    ("cauchy", 4, 2),
    ("cauchy", 4, 3),
    ("cauchy", 2, 2),
    ("cauchy", 1, 1),
    ("cauchy", 16, 4),
    ("vandermonde", 4, 2),
    ("vandermonde", 10, 4),
    ("vandermonde", 5, 5),
]
PYECLIB_HEADER_BYTES = 80


@st.composite
def codes(draw: st.DrawFn) -> Code:
    if draw(st.booleans()):
        return copies(draw(st.integers(1, 7)))
    m = draw(st.integers(1, 6))
    if draw(st.booleans()):
        return erasure(draw(st.integers(1, min(12, VANDERMONDE_K_MAX[m]))), m, Matrix.VANDERMONDE)
    return erasure(draw(st.integers(1, 12)), m)


@pytest.mark.parametrize(("matrix", "k", "m"), SHAPES)
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1000, 4096, 70_001])
def test_fragments_are_those_of_the_reference(matrix: str, k: int, m: int, length: int) -> None:
    block = sealed(length)
    coded = encode(block, code(matrix, k, m))
    assert [bytes(payload) for payload in coded.payloads] == reference.pieces(block, matrix, k, m)
    assert coded.commitment == reference.commitment(block, matrix, k, m)
    assert coded.ref.id == reference.block_id(coded.commitment)
    assert list(coded.leaves) == [reference.leaves(bytes(payload)) for payload in coded.payloads]


@pytest.mark.parametrize(("matrix", "k", "m"), [*SHAPES, ("cauchy", 24, 8), ("cauchy", 31, 1), ("vandermonde", 28, 3)])
def test_fragments_are_those_of_pyeclib(matrix: str, k: int, m: int) -> None:
    """pyeclib puts a header before each payload and pads less; on a length that needs no padding they agree."""
    block = sealed(k * 64 * 3)
    kind = "isa_l_rs_cauchy" if matrix == "cauchy" else "isa_l_rs_vand"
    theirs = [fragment[PYECLIB_HEADER_BYTES:] for fragment in ECDriver(k=k, m=m, ec_type=kind).encode(block)]
    assert [bytes(payload) for payload in encode(block, code(matrix, k, m)).payloads] == theirs


@pytest.mark.parametrize(("matrix", "k", "m"), [shape for shape in SHAPES if shape[1] + shape[2] <= 10])
def test_every_loss_of_m_is_survived(matrix: str, k: int, m: int) -> None:
    block = sealed(3000)
    coded = encode(block, code(matrix, k, m))
    commitment = open_commitment(coded.ref, coded.commitment)
    for kept in itertools.combinations(range(k + m), k):
        payloads = {index: coded.payloads[index] for index in kept}
        assert decode(coded.ref, payloads, commitment) == block
        lost = [index for index in range(k + m) if index not in kept]
        rebuilt = rebuild(coded.ref, coded.commitment, payloads, lost)
        assert {index: bytes(payload) for index, (payload, _) in rebuilt.items()} == {
            index: bytes(coded.payloads[index]) for index in lost
        }
        assert all(leaves == coded.leaves[index] for index, (_, leaves) in rebuilt.items())


def test_the_reference_decodes_what_we_encode() -> None:
    block = sealed(1234)
    for matrix, k, m in SHAPES:
        coded = encode(block, code(matrix, k, m))
        last = {index: bytes(coded.payloads[index]) for index in range(m, k + m)}
        assert reference.recover(last, matrix, k, m, len(block)) == block


@given(codes(), st.integers(1, 3 * LEAF_BYTES + 7), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_round_trip_from_any_k(shape: Code, length: int, random: object) -> None:
    block = sealed(length, seed=length)
    coded = encode(block, shape)
    assert len(coded.payloads) == shape.width
    kept = random.sample(range(shape.width), shape.k)  # type: ignore[attr-defined]
    payloads = {index: coded.payloads[index] for index in kept}
    assert bytes(decode(coded.ref, payloads)) == block
    with pytest.raises(NotEnoughFragments):
        decode(coded.ref, dict(list(payloads.items())[1:]))


@given(codes(), st.integers(1, 3 * LEAF_BYTES + 7), st.data())
@settings(max_examples=60, deadline=None)
def test_pieces_may_lie_in_their_places_already(shape: Code, length: int, data: st.DataObject) -> None:
    block = sealed(length, seed=length)
    coded = encode(block, shape)
    kept = data.draw(st.sets(st.integers(0, shape.width - 1), min_size=shape.k, max_size=shape.k))
    placed = data.draw(st.sets(st.sampled_from(sorted(kept))))
    room = Room.of(coded.ref)
    assert [len(place) for place in room.places] == [payload_bytes(shape, length)] * shape.k
    payloads: dict[int, Buffer] = {index: coded.payloads[index] for index in kept}
    for index in placed & set(range(shape.k)):
        room.places[index][:] = payloads[index]
        payloads[index] = room.places[index]
    joined = memoryview(decode(coded.ref, payloads, open_commitment(coded.ref, coded.commitment), room))
    assert bytes(joined) == block
    if shape.k > 1:
        assert joined.obj is room.whole.obj


@given(codes(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_wrong_payload_is_never_rebuilt_from(shape: Code, data: st.DataObject) -> None:
    """Even when the caller forgot to check its payloads: only what was committed to comes out, or nothing does."""
    block = sealed(500)
    coded = encode(block, shape)
    kept = data.draw(st.sampled_from(list(itertools.combinations(range(shape.width), shape.k))[:200]))
    payloads = {index: bytearray(coded.payloads[index]) for index in kept}
    victim = data.draw(st.sampled_from(kept))
    payloads[victim][data.draw(st.integers(0, len(payloads[victim]) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        rebuilt = rebuild(coded.ref, coded.commitment, payloads, range(shape.width))
    except Corrupt:
        return
    # All that was wrong, or came out wrong of wrong parity, lies behind the end of the block.
    assert bytes(decode(coded.ref, payloads)) == block
    assert all(rebuilt[i] == (coded.payloads[i], coded.leaves[i]) for i in range(shape.width))


@pytest.mark.parametrize("victim", [3, 5])
def test_what_is_wrong_with_padding_alone_is_no_damage(victim: int) -> None:
    """The fifth data piece of 128 bytes is nothing but padding, and so is what is wrong with it by wrong parity."""
    coded = encode(sealed(500), erasure(5, 1))
    payloads = {index: bytearray(coded.payloads[index]) for index in (0, 1, 2, 3, 5)}
    payloads[victim][-1] ^= 1
    rebuilt = rebuild(coded.ref, coded.commitment, payloads, [4, 5])
    assert rebuilt == {index: (coded.payloads[index], coded.leaves[index]) for index in (4, 5)}


def test_pieces_that_do_not_belong_together_are_caught_on_read() -> None:
    """An encoder that commits to parity of another block: each fragment is as committed, but they contradict."""
    ours, theirs = encode(sealed(1000, 1), erasure(4, 2)), encode(sealed(1000, 2), erasure(4, 2))
    commitment = open_commitment(ours.ref, ours.commitment)
    forged = {0: ours.payloads[0], 1: ours.payloads[1], 2: ours.payloads[2], 4: theirs.payloads[4]}
    with pytest.raises(Corrupt):
        decode(ours.ref, forged, commitment)


def test_more_copies_are_made_from_one_without_a_new_id() -> None:
    two, five = encode(sealed(100), copies(2)), encode(sealed(100), copies(5))
    assert two.ref.id == five.ref.id
    assert two.commitment == five.commitment
    assert set(rebuild(two.ref, two.commitment, {1: two.payloads[1]}, [0, 4])) == {0, 4}


def test_whole_blocks_are_not_copied() -> None:
    block = sealed(4 * 64 * 1024)
    coded = encode(block, erasure(4, 2))
    assert all(memoryview(payload).obj is block for payload in coded.payloads[:4])
    assert memoryview(encode(block, copies(3)).payloads[2]).obj is block


def test_limits() -> None:
    for length in (0, SEALED_BLOCK_MAX_BYTES + 1):
        with pytest.raises(InvalidRequest):
            encode(bytes(length), erasure(4, 2))
    ref = encode(sealed(100), erasure(2, 1)).ref
    with pytest.raises(Corrupt):
        decode(ref, {0: b"short", 1: b"short"})
    with pytest.raises(InvalidRequest):
        decode(ref, {0: bytes(64), 7: bytes(64)})


def test_piece_lengths() -> None:
    assert payload_bytes(erasure(4, 2), 4 * 64) == 64
    assert payload_bytes(erasure(4, 2), 4 * 64 + 1) == 128
    assert payload_bytes(copies(3), 77) == 77


def test_small_blocks_are_kept_as_copies_that_survive_as_much() -> None:
    assert code_for(4 * 8 * 1024, erasure(4, 2)) == erasure(4, 2)
    assert code_for(4 * 8 * 1024 - 1, erasure(4, 2)) == copies(3)
    assert code_for(1, copies(2)) == copies(2)
    assert code_for(1, erasure(8, 7)) == erasure(8, 7), "8 copies are more than there are"


def test_refs_are_compared_by_value() -> None:
    assert encode(b"x", copies(1)).ref == BlockRef(encode(b"x", copies(1)).ref.id, copies(1), 1)
