"""The stored formats: golden bytes, and parsers that take any bytes without harm.

docs/formats/fragment.md and docs/formats/identity.md describe them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.core.disk import File
from holdfast.core.errors import Corrupt, HoldfastError
from holdfast.core.ids import BlockId, Buffer, DriveId, StoreId
from holdfast.core.limits import LEAF_BYTES
from holdfast.drives.identity import Identity, decode_identity, encode_identity
from holdfast.drives.interface import FragmentKey
from holdfast.drives.os_disk import OsDisk
from holdfast.drives.records import PAGE_BYTES, Head, Kind, Place, encode_head, payload_checksums, read_head
from holdfast.drives.segments import (
    FIRST_GENERATION,
    TRAILER_BYTES,
    Entry,
    check_header,
    decode_footer,
    decode_trailer,
    encode_entry,
    encode_footer,
    encode_header,
    entry_of,
    read_contents,
    scan,
)

VECTORS = Path(__file__).parents[2] / "vectors"
SEGMENT = bytes(range(8))
DRIVE = DriveId(bytes(range(16, 32)))


def golden(name: str) -> dict[str, Any]:
    vectors: dict[str, Any] = json.loads((VECTORS / f"{name}.json").read_text())
    return vectors


def head_of(fields: dict[str, Any]) -> Head:
    """A head as the vectors spell it; its payload is bytes 0, 1, ... 250, 0, 1, ..."""
    payload = payload_of(fields["payload_bytes"])
    return Head(
        Kind(fields["kind"]),
        FragmentKey(BlockId(bytes.fromhex(fields["block"])), fields["index"]),
        fields["sequence"],
        fields["commit"],
        Place(bytes.fromhex(fields["segment"]), fields["offset"], fields["span"]),
        bytes.fromhex(fields["tag"]),
        bytes.fromhex(fields["commitment"]),
        bytes.fromhex(fields["leaves"]),
        payload_checksums(payload),
        len(payload),
    )


def payload_of(length: int) -> bytes:
    return bytes(range(251)) * (length // 251) + bytes(range(length % 251))


def encoded(head: Head) -> bytes:
    return encode_head(head, FIRST_GENERATION)


@pytest.mark.parametrize("vector", golden("record")["records"], ids=lambda vector: vector["name"])
def test_records_are_these_bytes(vector: dict[str, Any]) -> None:
    head = head_of(vector["fields"])
    assert encoded(head).hex() == vector["head"]
    data = memoryview(bytes.fromhex(vector["head"]) + b"whatever follows")
    assert read_head(data, head.place.segment, FIRST_GENERATION, head.place.offset) == head


def test_a_segment_is_these_bytes(tmp_path: Path) -> None:
    vector = golden("segment")
    heads = [head_of(fields) for fields in vector["records"]]
    data = bytearray(encode_header(SEGMENT, DRIVE))
    for head in heads:
        record = encoded(head) + payload_of(head.payload_bytes)
        assert head.place.offset == len(data)
        data += record.ljust(head.place.span, b"\0")
    end = len(data)
    data += encode_footer(SEGMENT, end, len(heads), b"".join(encode_entry(entry_of(head)) for head in heads))
    expected = b"".join(bytes.fromhex(page).ljust(PAGE_BYTES, b"\0") for page in vector["pages"])
    assert data == expected[:-TRAILER_BYTES] + bytes.fromhex(vector["trailer"])
    path = tmp_path / "segment"
    path.write_bytes(data)
    file = OsDisk().open(path)
    contents = read_contents(file, SEGMENT)
    assert contents.closed
    assert contents.end == end
    assert contents.entries == [entry_of(head) for head in heads]
    # Without the footer a scan finds the same.
    path.write_bytes(data[:end])
    scanned = scan(OsDisk().open(path), SEGMENT)
    assert (scanned.entries, scanned.end, scanned.damaged) == (contents.entries, end, ())
    assert check_header(bytes(data[:PAGE_BYTES]), SEGMENT, DRIVE) == FIRST_GENERATION


def test_an_identity_is_these_bytes() -> None:
    vector = golden("identity")
    identity = Identity(StoreId(bytes.fromhex(vector["store"])), DriveId(bytes.fromhex(vector["drive"])))
    assert encode_identity(identity).hex() == vector["identity"]
    assert decode_identity(bytes.fromhex(vector["identity"]), Path("d")) == identity


HEAD = head_of(golden("record")["records"][0]["fields"])
ENTRIES = [
    Entry(Kind.FRAGMENT, FragmentKey(BlockId(bytes(32)), 1), 5, Place(SEGMENT, 4096, 4096), 150, 10, b"tag"),
    Entry(Kind.TOMBSTONE, FragmentKey(BlockId(bytes(32)), 2), 6, Place(SEGMENT, 8192, 4096), 104, 0, b""),
]
FOOTER = encode_footer(SEGMENT, 12288, 2, b"".join(map(encode_entry, ENTRIES)))
FOOTER_BODY = FOOTER[: decode_trailer(FOOTER[-TRAILER_BYTES:], SEGMENT, FIRST_GENERATION)[1]]

PARSERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "head": (encoded(HEAD), lambda data: read_head(memoryview(data), SEGMENT, FIRST_GENERATION, HEAD.place.offset)),
    "header": (encode_header(SEGMENT, DRIVE)[:40], lambda data: check_header(data, SEGMENT, DRIVE)),
    "trailer": (FOOTER[-TRAILER_BYTES:], lambda data: decode_trailer(data, SEGMENT, FIRST_GENERATION)),
    "footer": (FOOTER_BODY, lambda data: decode_footer(data, SEGMENT, FIRST_GENERATION)),
    "identity": (encode_identity(Identity(StoreId(bytes(16)), DRIVE)), lambda data: decode_identity(data, Path("d"))),
}


@pytest.mark.parametrize("name", PARSERS)
def test_every_flipped_bit_is_noticed(name: str) -> None:
    good, parse = PARSERS[name]
    parse(good)
    for bit in range(len(good) * 8):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            parse(bytes(bad))
    for length in range(len(good)):
        with pytest.raises(Corrupt):
            parse(good[:length])


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=300), keep=st.integers(0, 60))
@example(data=b"", keep=0)
def test_parsers_take_any_bytes(name: str, data: bytes, keep: int) -> None:
    good, parse = PARSERS[name]
    try:
        parse(good[:keep] + data)
    except HoldfastError:
        pass


def test_a_record_elsewhere_is_none() -> None:
    data = memoryview(encoded(HEAD))
    for place in ((b"another!", 1, HEAD.place.offset), (SEGMENT, 2, HEAD.place.offset), (SEGMENT, 1, 0)):
        with pytest.raises(Corrupt):
            read_head(data, *place)


@given(st.lists(st.one_of(st.binary(max_size=5000), st.just(encoded(HEAD)), st.just(FOOTER)), max_size=6))
def test_a_scan_takes_any_file(parts: list[bytes]) -> None:
    file = BytesFile(encode_header(SEGMENT, DRIVE) + b"".join(parts))
    contents = read_contents(file, SEGMENT)
    assert contents.end % PAGE_BYTES == 0 or contents.closed


def segment_with(*commits: list[Head]) -> bytearray:
    data = bytearray(encode_header(SEGMENT, DRIVE))
    for commit in commits:
        for head in commit:
            record = (encoded(head) + payload_of(head.payload_bytes)).ljust(head.place.span, b"\0")
            start = head.place.offset
            data.extend(bytes(max(0, start + len(record) - len(data))))
            data[start : start + len(record)] = record
    return data


def head_at(offset: int, commit: int, number: int, *, payload: int = 100) -> Head:
    block = BlockId(bytes((number,)) * 32)
    sums = payload_checksums(payload_of(payload))
    span = 4096 * (1 + (payload + 300) // 4096)
    return Head(
        Kind.FRAGMENT,
        FragmentKey(block, 0),
        10 + commit,
        commit,
        Place(SEGMENT, offset, span),
        b"",
        b"c",
        b"",
        sums,
        payload,
    )


def numbers(data: Buffer) -> list[int]:
    return [entry.key.block[0] for entry in scan(BytesFile(data), SEGMENT).entries]


def test_a_torn_last_commit_counts_record_by_record() -> None:
    data = segment_with([head_at(4096, 1, 1)], [head_at(8192, 2, 2), head_at(12288, 2, 3)])
    assert numbers(data) == [1, 2, 3]
    payload = 8192 + HEAD_BYTES + 5
    data[payload] ^= 1
    assert numbers(data) == [1, 3]
    assert scan(BytesFile(data), SEGMENT).damaged == ()


def test_a_rotten_payload_before_the_last_commit_stays_in_view() -> None:
    data = segment_with([head_at(4096, 1, 1)], [head_at(8192, 2, 2)])
    data[4096 + HEAD_BYTES + 5] ^= 1
    assert numbers(data) == [1, 2]


def test_a_rotten_head_before_the_last_commit_is_damage() -> None:
    data = segment_with([head_at(4096, 1, 1)], [head_at(8192, 2, 2)], [head_at(12288, 3, 3)])
    data[8192 + 20] ^= 1
    contents = scan(BytesFile(data), SEGMENT)
    assert [entry.key.block[0] for entry in contents.entries] == [1, 3]
    assert contents.damaged == (8192,)


def test_what_a_failed_longer_commit_left_is_passed_over() -> None:
    failed = [head_at(8192, 2, 2), head_at(12288, 2, 3), head_at(16384, 2, 4)]
    data = segment_with([head_at(4096, 1, 1)], failed, [head_at(8192, 3, 5)])
    assert numbers(data) == [1, 5]
    data = segment_with([head_at(4096, 1, 1)], failed, [head_at(8192, 3, 5)], [head_at(12288, 4, 6)])
    assert numbers(data) == [1, 5, 6]
    assert scan(BytesFile(data), SEGMENT).end == 16384


HEAD_BYTES = head_at(4096, 1, 1).bytes


def test_checksums_are_of_each_leaf() -> None:
    payload = payload_of(3 * LEAF_BYTES + 1)
    sums = payload_checksums(payload)
    assert len(sums) == 4 * 8
    assert sums[8:16] == payload_checksums(payload[LEAF_BYTES : 2 * LEAF_BYTES])
    assert payload_checksums(b"") == b""


def BytesFile(data: Buffer) -> File:
    """A file in memory; only what reading needs."""
    return _BytesFile(bytes(data))  # type: ignore[return-value]


class _BytesFile:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def read_into(self, buffer: memoryview, offset: int) -> int:
        data = self._data[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        return len(data)

    def size(self) -> int:
        return len(self._data)
