"""The commitment: golden bytes, ranges checked without a key, and a decoder that takes nothing else."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.core.ids import BlockId
from holdfast.core.limits import LEAF_BYTES
from holdfast.erasure import BlockRef, check_fragment, copies, decode_commitment, encode, erasure, open_commitment
from tests.unit.erasure import reference
from tests.unit.erasure.sample import code, sealed

VECTORS = Path(__file__).parents[2] / "vectors"
LEAVES = 3
LENGTH = 4 * (LEAVES * LEAF_BYTES - 1000)


@pytest.mark.parametrize(
    "case", json.loads((VECTORS / "commitment.json").read_text())["cases"], ids=lambda c: c["name"]
)
def test_golden_commitments(case: dict[str, object]) -> None:
    block = sealed(int(str(case["length"])), int(str(case["seed"])))
    shape = code(str(case["matrix"]), int(str(case["k"])), int(str(case["m"])))
    coded = encode(block, shape)
    assert coded.commitment.hex() == case["commitment"]
    assert coded.ref.id.hex() == case["block"]


@pytest.mark.parametrize("case", json.loads((VECTORS / "erasure.json").read_text())["cases"], ids=lambda c: c["name"])
def test_golden_fragments(case: dict[str, object]) -> None:
    matrix, k, m = str(case["matrix"]), int(str(case["k"])), int(str(case["m"]))
    block = bytes.fromhex(str(case["sealed"]))
    assert [bytes(payload).hex() for payload in encode(block, code(matrix, k, m)).payloads] == case["payloads"]
    assert [payload.hex() for payload in reference.pieces(block, matrix, k, m)] == case["payloads"]


@given(st.integers(0, LEAVES - 1), st.integers(1, LEAVES), st.integers(0, 5))
def test_any_range_of_leaves_is_checked_without_a_key(first: int, count: int, index: int) -> None:
    coded = encode(sealed(LENGTH), erasure(4, 2))
    payload = coded.payloads[index]
    start = first * LEAF_BYTES
    data = bytes(payload[start : start + count * LEAF_BYTES])
    arguments = (coded.ref.id, index, coded.commitment, coded.leaves[index], start)
    check_fragment(*arguments, data, len(payload))
    for wrong in (bytes([data[0] ^ 1]) + data[1:], data[:-1] + bytes([data[-1] ^ 128]), data[:-1], data + b"\0"):
        with pytest.raises(Corrupt):
            check_fragment(*arguments, wrong, len(payload))


def test_every_argument_is_held_to_the_commitment() -> None:
    coded, other = encode(sealed(LENGTH), erasure(4, 2)), encode(sealed(LENGTH, 1), erasure(4, 2))
    payload = coded.payloads[1]
    right = (coded.ref.id, 1, coded.commitment, coded.leaves[1], 0, payload, len(payload))
    check_fragment(*right)
    wrong_values: list[tuple[int, object]] = [
        (0, other.ref.id),
        (1, 2),
        (1, 6),
        (1, -1),
        (2, other.commitment),
        (3, coded.leaves[2]),
        (3, coded.leaves[1][:-32]),
        (3, b""),
        (4, LEAF_BYTES),
        (4, -LEAF_BYTES),
        (4, 1),
        (5, b""),
        (6, len(payload) - 1),
        (6, len(payload) + 1),
    ]
    for position, wrong in wrong_values:
        arguments = [*right]
        arguments[position] = wrong  # type: ignore[call-overload]
        with pytest.raises(Corrupt):
            check_fragment(*arguments)  # type: ignore[arg-type]


def test_a_copy_has_any_index_that_a_copy_can_have() -> None:
    coded = encode(sealed(10), copies(1))
    for index in range(7):
        check_fragment(coded.ref.id, index, coded.commitment, coded.leaves[0], 0, coded.payloads[0], 10)
    with pytest.raises(Corrupt):
        check_fragment(coded.ref.id, 7, coded.commitment, coded.leaves[0], 0, coded.payloads[0], 10)


def test_a_reference_is_held_to_its_commitment() -> None:
    ref = (coded := encode(sealed(1000), erasure(4, 2))).ref
    assert open_commitment(ref, coded.commitment).encode() == coded.commitment
    for wrong in (
        BlockRef(BlockId(bytes(32)), ref.code, ref.length),
        BlockRef(ref.id, erasure(4, 3), ref.length),
        BlockRef(ref.id, copies(3), ref.length),
        BlockRef(ref.id, ref.code, ref.length + 1),
    ):
        with pytest.raises(Corrupt):
            open_commitment(wrong, coded.commitment)


def test_the_code_and_the_length_are_part_of_the_id() -> None:
    blocks = [b"a" * 64, b"a" * 63, b"a" * 63 + b"\0"]
    shapes = [
        copies(1),
        erasure(1, 1),
        erasure(1, 2),
        erasure(2, 1),
        code("vandermonde", 1, 1),
        code("vandermonde", 1, 2),
    ]
    ids = {encode(block, shape).ref.id for block in blocks for shape in shapes}
    assert len(ids) == len(blocks) * len(shapes)


@given(st.binary(max_size=200))
def test_the_decoder_takes_what_it_would_write_and_nothing_else(encoded: bytes) -> None:
    try:
        commitment = decode_commitment(encoded)
    except Corrupt:
        return
    assert commitment.encode() == encoded


@given(st.sampled_from([erasure(4, 2), copies(3), code("vandermonde", 3, 2)]), st.data())
@settings(max_examples=300)
def test_mutated_commitments_are_refused_or_are_canonical(shape: object, data: st.DataObject) -> None:
    coded = encode(sealed(300), shape)  # type: ignore[arg-type]
    mutated = bytearray(coded.commitment)
    for _ in range(data.draw(st.integers(1, 3))):
        action = data.draw(st.sampled_from(["flip", "cut", "add"]))
        if action == "flip":
            mutated[data.draw(st.integers(0, min(len(mutated) - 1, 12)))] ^= data.draw(st.integers(1, 255))
        elif action == "cut" and len(mutated) > 1:
            del mutated[data.draw(st.integers(1, len(mutated) - 1)) :]
        else:
            mutated += data.draw(st.binary(max_size=40))
    try:
        commitment = decode_commitment(bytes(mutated))
    except Corrupt:
        return
    assert commitment.encode() == mutated
    if mutated != coded.commitment:
        with pytest.raises(Corrupt):
            open_commitment(coded.ref, bytes(mutated))
