"""Row keys keep their order, values keep their bytes, and what is no row is Corrupt."""

import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.core.ids import SessionId
from holdfast.objects import rows

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "rows.json").read_text())

VALUES = {
    "bucket": rows.BucketRow(1, b"bucketid", 1_700_000_000_000_000_000, "enabled", "eu-west-1", {"team": "a"}),
    "version": rows.VersionRow(
        1, 7, b"unique##", False, 3, False, 5, "5d41402abc4b2a76b9719d911017c592", 1_700_000_000_000_000_001,
        {"content-type": "text/plain"}, {"colour": "blau"}, {"crc32c": "mnG7TA=="}, None, b"hello", {"stage": "1"}, 9,
    ),
    "content": rows.ContentRow(
        1, 2, 3 << 20, 1_700_000_000_000_000_002, 0, b"root", b"walk", [], [], ("cauchy", 4, 2), 1
    ),
    "composite": rows.ContentRow(
        1, 0, 9, 1, 2, None, None, [rows.Extent(b"c" * 16, 4, 9)], [4, 5], ("", 0, 0), 0,
        {"crc32": ["AAAAAA==", "AAAAAQ=="]},
    ),
    "upload": rows.UploadRow(1, "key", 3, {}, {"a": "b"}, {"crc32": "COMPOSITE"}, {"a": "b"}),
    "part": rows.PartRow(1, 4, "ff", 5, {}, b"c" * 16),
    "copied part": rows.PartRow(1, 4, "ff", 5, {}, None, [rows.Extent(b"c" * 16, 4, 4)]),
    "completed": rows.CompletedRow(1, b"unique##", "ff-1", b"p" * 32, 6, True),
    "session": rows.SessionRow(1, 7, "host", 42),
    "heartbeat": rows.HeartbeatRow(1, 8),
    "repair": rows.RepairRow(1, b"c" * 16, 1 << 56, b"b" * 32, "cauchy", 4, 2, 1_048_640, 9),
    "access key": rows.AccessKeyRow(1, "secret", False, True, 10, "label", {"*": "r", "name": "rw"}),
    "access keys": rows.AccessKeysRow(1, 11),
    "progress": rows.ProgressRow(1, b"data"),
}  # fmt: skip

KEYS = {
    "bucket": rows.bucket_row_key("name"),
    "object": rows.object_row_key(b"bucketid", "a\0ü".encode()),
    "version": rows.version_row_key(b"bucketid", "a\0ü".encode(), 7),
    "content": rows.content_row_key(b"c" * 16),
    "condemned": rows.condemned_row_key(2, b"c" * 16),
    "upload": rows.upload_row_key(b"bucketid", b"a\0b", b"u" * 16),
    "part": rows.part_row_key(b"u" * 16, 10_000),
    "completed": rows.completed_row_key(b"bucketid", b"a", b"u" * 16),
    "session": rows.session_row_key(SessionId(b"session#")),
    "heartbeat": rows.heartbeat_row_key(SessionId(b"session#")),
    "repair": rows.repair_row_key(b"b" * 32),
    "access key": rows.access_key_row_key("AKIA"),
    "access keys": rows.ACCESS_KEYS,
    "layout": rows.layout_row_key(1),
    "progress": rows.progress_row_key("scrub"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_have_golden_bytes(name: str) -> None:
    value = VALUES[name]
    assert value.encode().hex() == VECTORS["values"][name]
    assert type(value).decode(bytes.fromhex(VECTORS["values"][name])) == value


@pytest.mark.parametrize("name", VECTORS["before"])
def test_rows_from_before_a_field_was_appended_are_read(name: str) -> None:
    old = type(VALUES[name]).decode(bytes.fromhex(VECTORS["before"][name]))
    assert len(old.encode()) > len(VECTORS["before"][name]) // 2
    assert msgspec.structs.astuple(old)[-1] in ({}, [], 0, False)


@pytest.mark.parametrize("name", KEYS)
def test_keys_have_golden_bytes(name: str) -> None:
    assert KEYS[name].hex() == VECTORS["keys"][name]


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_escaping_keeps_order_and_comes_back(left: bytes, right: bytes) -> None:
    assert (rows.escape(left) < rows.escape(right)) == (left < right)
    assert left == right or not rows.escape(left).startswith(rows.escape(right))
    assert rows.unescape(rows.escape(left) + right) == (left, len(rows.escape(left)))


@given(st.binary(max_size=30))
def test_unescape_refuses_or_inverts(data: bytes) -> None:
    try:
        key, used = rows.unescape(data)
    except Corrupt:
        return
    assert rows.escape(key) == data[:used]


@given(st.binary(min_size=1, max_size=30), st.integers(1, 2**64 - 2))
def test_versions_sort_newest_first(key: bytes, sequence: int) -> None:
    newer = rows.version_row_key(b"bucketid", key, sequence + 1)
    older = rows.version_row_key(b"bucketid", key, sequence)
    assert newer < older
    assert rows.version_row_parts(older) == (key, sequence)


@pytest.mark.parametrize("name", VALUES)
@settings(deadline=None)
@given(data=st.data())
def test_what_is_no_row_is_corrupt(name: str, data: st.DataObject) -> None:
    encoded = VALUES[name].encode()
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(Corrupt):
        type(VALUES[name]).decode(encoded[:cut])
    flipped = bytearray(encoded)
    flipped[cut] ^= data.draw(st.integers(1, 255))
    try:
        type(VALUES[name]).decode(bytes(flipped))
    except Corrupt:
        pass


def test_a_row_of_a_later_shape_is_refused() -> None:
    with pytest.raises(Corrupt, match="shape 2"):
        rows.HeartbeatRow.decode(rows.HeartbeatRow(2, 1).encode())
