"""The layout: golden bytes, the chain, what is refused."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import DriveId
from holdfast.placement import (
    Layout,
    State,
    add,
    decode_layout,
    encode_layout,
    first_layout,
    replace_drive,
    restore,
    retire,
)
from tests.unit.placement.sample import drive, mixed

GOLDEN = json.loads((Path(__file__).parents[2] / "vectors" / "layout.json").read_text())


def chain() -> list[Layout]:
    first = first_layout([drive(0, 1, "alpha", "east"), drive(1, 2, "beta", "west"), drive(2, 4, "gamma", "west")])
    second = add(first, [drive(3, 4, "delta", "east")])
    third = retire(second, drive(0).id, State.DRAINING)
    fourth = replace_drive(third, drive(1).id, drive(4, 8, "beta", "west"))
    return [first, second, third, replace(fourth, signature=bytes(range(64)))]


def test_golden_bytes() -> None:
    for layout, case in zip(chain(), GOLDEN["cases"], strict=True):
        assert encode_layout(layout).hex() == case["layout"]
        assert layout.hash.hex() == case["hash"]
        assert decode_layout(bytes.fromhex(case["layout"])) == layout


def test_each_version_names_the_hash_of_the_one_before_whatever_its_signature() -> None:
    layouts = chain()
    for before, after in pairwise(layouts):
        assert after.previous == before.hash == replace(before, signature=bytes(64)).hash
        assert after.version == before.version + 1
        assert after.hash != before.hash


def test_a_drive_that_left_stays_in_the_document() -> None:
    gone = next(entry for entry in chain()[-1].drives if entry.id == drive(1).id)
    heir = next(entry for entry in chain()[-1].drives if entry.id == drive(4).id)
    assert (gone.state, gone.until, heir.seat, heir.since) == (State.GONE, 4, gone.seat, 4)
    assert drive(1).id not in [entry.id for entry in chain()[-1].active]


def test_what_contradicts_itself_is_refused() -> None:
    layout = first_layout(mixed(3))
    entry = layout.drives[0]
    wrong = [
        replace(entry, weight=0),
        replace(entry, node=""),
        replace(entry, zone="z" * 65),
        replace(entry, since=2),
        replace(entry, since=0),
        replace(entry, state=State.GONE),
        replace(entry, seat=b"short"),
        replace(entry, id=DriveId(b"")),
        replace(entry, seat=layout.drives[1].seat),
    ]
    for broken in wrong:
        with pytest.raises(InvalidRequest):
            Layout(1, bytes(32), (broken, *layout.drives[1:]))
    for version, previous, signature in (
        (0, bytes(32), b""),
        (2, bytes(32), b""),
        (1, b"x" * 32, b""),
        (1, bytes(32), b"x"),
    ):
        with pytest.raises(InvalidRequest):
            Layout(version, previous, layout.drives, signature)
    with pytest.raises(InvalidRequest):
        Layout(1, bytes(32), layout.drives[::-1])
    with pytest.raises(InvalidRequest):
        add(layout, [layout.drives[0]])


def test_states_change_only_forward() -> None:
    layout = first_layout(mixed(3))
    first = layout.drives[0].id
    draining = retire(layout, first, State.DRAINING)
    gone = retire(draining, first, State.GONE)
    for call in (
        lambda: retire(draining, first, State.DRAINING),
        lambda: retire(layout, first, State.ACTIVE),
        lambda: retire(gone, first, State.DRAINING),
        lambda: restore(layout, first),
        lambda: restore(gone, first),
        lambda: replace_drive(gone, first, drive(9)),
        lambda: retire(layout, DriveId(bytes(16)), State.GONE),
    ):
        with pytest.raises(InvalidRequest):
            call()
    assert gone.drives[0].until == draining.drives[0].until == 2


@given(st.data())
@settings(max_examples=300)
def test_mutated_layouts_are_refused_or_are_canonical(data: st.DataObject) -> None:
    encoded = bytearray(encode_layout(chain()[data.draw(st.integers(0, 3))]))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del encoded[data.draw(st.integers(0, len(encoded))) :]
    try:
        layout = decode_layout(bytes(encoded))
    except Corrupt:
        return
    assert encode_layout(layout) == encoded


@given(st.binary(max_size=100))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Corrupt):
        decode_layout(noise)


def test_another_encoding_of_the_same_layout_is_refused() -> None:
    plain = msgspec.msgpack.decode(encode_layout(chain()[0]))
    assert msgspec.msgpack.encode(plain) == encode_layout(chain()[0])
    for other in ([*plain, 0], [2, *plain[1:]], [*plain[:2], "x" * 32, *plain[3:]]):
        with pytest.raises(Corrupt):
            decode_layout(msgspec.msgpack.encode(other))
