"""The bytes of log, checkpoint and witness: golden ones, and whatever else a disk may hold."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.core.ids import StoreId
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.local.checkpoint import CheckpointReader, decode_block, encode_checkpoint
from holdfast.meta.local.log import (
    LoggedCommit,
    Position,
    Record,
    decode_payload,
    decode_position,
    decode_record,
    encode_payload,
    encode_position,
    encode_record,
    following,
    genesis,
)
from holdfast.meta.local.witness import Witness, decode_witness, encode_witness

VECTORS = Path(__file__).parents[2] / "vectors"
STORE = StoreId(bytes(range(16)))
TOKENS = [bytes([number]) * 16 for number in range(3)]
COMMITS: list[LoggedCommit] = [
    (TOKENS[1], [(b"key", b"value"), (b"gone",)]),
    (TOKENS[2], [(b"long" * 200, b"\x00" * 300)]),
]


def golden_log() -> bytes:
    """Two records at the beginning of a log."""
    position = genesis(STORE)
    log = b""
    for epoch, commits in ((1, COMMITS), (7, COMMITS[:1])):
        buffers, record_hash, length = encode_record(encode_payload(commits), epoch=epoch, after=position)
        position = following(position, 1, len(log), record_hash, length)
        log += b"".join(buffers)
    return log


def golden_checkpoint() -> bytes:
    rows = [(b"a", TOKENS[0] + b"first"), (b"b" * 600, TOKENS[1]), (b"c", TOKENS[2] + b"\xff" * 40)]
    return b"".join(encode_checkpoint(STORE, Position(5, 4096, 12288, 9, bytes(range(32))), rows))


def golden_witness() -> bytes:
    drives = tuple(bytes([number]) * 16 for number in range(4))
    return encode_witness(Witness(STORE, drives[1], 9, 8, drives[:2], drives, 1, 2, 1234567))


def golden(name: str) -> bytes:
    """What is stored: hexadecimal, without the zeros that pad a log record."""
    vector = json.loads((VECTORS / f"{name}.json").read_text())
    return b"".join(bytes.fromhex(part["hex"]) + bytes(part["zeros"]) for part in vector["parts"])


def test_the_log_is_as_it_was_written() -> None:
    raw = golden("log")
    assert raw == golden_log()
    position = genesis(STORE)
    for epoch, commits in ((1, COMMITS), (7, COMMITS[:1])):
        record = decode_record(raw[position.offset :], position)
        assert record is not None
        assert (record.epoch, decode_payload(record.payload)) == (epoch, commits)
        position = following(position, 1, position.offset, record.hash, record.length)
    assert position.offset == len(raw) == 8192
    assert decode_position(encode_position(position)) == position


def test_the_checkpoint_is_as_it_was_written(tmp_path: Path) -> None:
    assert golden("checkpoint") == golden_checkpoint()
    path = tmp_path / "checkpoint"
    path.write_bytes(golden("checkpoint"))
    reader = CheckpointReader(OsDisk(), path)
    head = reader.head()
    assert (head.store, head.position.sequence) == (STORE, 9)
    blocks = list(reader.blocks())
    assert [[row[0] for row in block] for block in blocks] == [[b"a", b"b" * 600, b"c"]]
    reader.close()


def test_the_witness_is_as_it_was_written() -> None:
    raw = golden("witness")
    assert raw == golden_witness()
    assert decode_witness(raw).sequence == 1234567


def test_no_change_of_a_record_goes_unseen() -> None:
    raw = golden_log()[:4096]
    used = 88 + len(encode_payload(COMMITS))
    for at in range(used):
        changed = bytearray(raw)
        changed[at] ^= 1 << at % 8
        assert decode_record(changed, genesis(STORE)) is None
    for length in range(0, used, 7):
        assert decode_record(raw[:length], genesis(STORE)) is None
    assert decode_record(raw, genesis(StoreId(bytes(16)))) is None


def test_no_change_of_a_witness_goes_unseen() -> None:
    raw = golden_witness()
    for at in range(len(raw)):
        for changed in (raw[:at], raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]):
            with pytest.raises(Corrupt):
                decode_witness(changed)


def test_no_change_of_a_checkpoint_goes_unseen(tmp_path: Path) -> None:
    rows = [(b"%03d" % number, TOKENS[0] + b"value") for number in range(10)]
    raw = b"".join(encode_checkpoint(STORE, genesis(STORE), rows))
    path = tmp_path / "checkpoint"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        reader = CheckpointReader(OsDisk(), path)
        try:
            reader.head()
            list(reader.blocks())
        finally:
            reader.close()

    read(raw)
    for at in range(len(raw)):
        for changed in (raw[:at], raw[:at] + bytes([raw[at] ^ 1 << at % 8]) + raw[at + 1 :]):
            with pytest.raises(Corrupt):
                read(changed)


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_parsers_bear_anything(data: bytes) -> None:
    for parse in (decode_payload, decode_block, decode_witness, decode_position):
        try:
            parse(data)
        except Corrupt:
            pass
    assert not isinstance(decode_record(data, genesis(STORE)), Record)


@given(st.data())
@settings(max_examples=300)
def test_parsers_bear_damage_behind_a_good_hash(data: st.DataObject) -> None:
    """As a bug elsewhere, or a forger with the hash function, would make it."""
    payload = bytearray(encode_payload(COMMITS))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    for parse in (decode_payload, decode_block):
        try:
            parse(bytes(payload))
        except Corrupt:
            pass
