"""The chunk list, to the byte, and everything that is none."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.errors import Corrupt
from holdfast.gateways.sos.blobs import is_id
from holdfast.gateways.sos.chunks import CHUNK_BYTES, Chunk, ChunkList, is_file_id, list_id, listed_file

VECTORS = json.loads((Path(__file__).parents[3] / "vectors" / "chunk-list.json").read_text())

FILE = "da39a3ee5e6b4b0d3255bfef95601890afd80709"
CHUNKS = ChunkList(FILE, [Chunk("a" * 40, CHUNK_BYTES), Chunk("b" * 40, 7)])


def resealed(text: str) -> bytes:
    return f"{text}sha256 {hashlib.sha256(text.encode()).hexdigest()}\n".encode()


def test_golden_bytes() -> None:
    for vector in VECTORS:
        chunks = ChunkList(vector["file"], [Chunk(*chunk) for chunk in vector["chunks"]])
        assert chunks.encode().decode() == vector["list"]
        assert ChunkList.decode(vector["list"].encode(), vector["file"]) == chunks
        assert list_id(vector["file"]) == vector["id"]


def test_ids() -> None:
    assert is_id(list_id(FILE))
    assert listed_file(list_id(FILE)) == FILE
    assert not is_file_id(list_id(FILE))
    for other in (FILE, "chunklist", "chunklist12", list_id(FILE.upper()), "x" + list_id(FILE)):
        assert listed_file(other) is None


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.integers(0, 1 << 60)), min_size=1, max_size=50))
def test_every_list_comes_back(entries: list[tuple[bytes, int]]) -> None:
    chunks = ChunkList(FILE, [Chunk(name.hex(), size) for name, size in entries])
    assert ChunkList.decode(chunks.encode(), FILE) == chunks


@given(st.integers(0, len(CHUNKS.encode()) - 1), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    data = bytearray(CHUNKS.encode())
    data[place] ^= change
    with pytest.raises(Corrupt):
        ChunkList.decode(bytes(data), FILE)


@given(st.binary(max_size=300))
def test_other_bytes_are_no_list(data: bytes) -> None:
    with pytest.raises(Corrupt):
        ChunkList.decode(data, FILE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sos chunk list 1\n",
        f"sos chunk list 1\n{FILE} 0\n",
        f"sos chunk list 2\n{FILE} 7\n{'a' * 40} 7\n",
        f"sos chunk list 1\n{FILE} 8\n{'a' * 40} 7\n",
        f"sos chunk list 1\n{'c' * 40} 7\n{'a' * 40} 7\n",
        f"sos chunk list 1\n{FILE} 7\n{'a' * 39} 7\n",
        f"sos chunk list 1\n{FILE} 7\n{'a' * 40} -7\n",
        f"sos chunk list 1\n{FILE} 7\n{'a' * 40} 7 \n",
        f"sos chunk list 1\n{FILE} 7\n\n{'a' * 40} 7\n",
    ],
)
def test_lists_that_are_sealed_and_still_wrong(text: str) -> None:
    with pytest.raises(Corrupt):
        ChunkList.decode(resealed(text), FILE)
