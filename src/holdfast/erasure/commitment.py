"""The commitment: the few bytes that a block's id is the hash of, and that anybody can check a fragment by.

    sealed block -> n payloads -> leaves of 64 KiB -> leaf hashes -> one root per payload -> commitment -> block id

Invariants.
- Equal code, length and sealed bytes give equal ids; anything else gives another id.
- One commitment has one encoding: what decodes, encodes to the same bytes.
- For copies the one root is committed to, not the count: copies can be added without a new id.
- Three keys keep leaves, roots and ids apart, so that no hash of one kind passes for another.

docs/formats/commitment.md spells the bytes.
"""

import struct

from blake3 import blake3
from msgspec import Struct

from holdfast.core.errors import Corrupt, InvalidRequest
from holdfast.core.ids import BlockId, Buffer
from holdfast.core.limits import COPIES_MAX_COUNT, LEAF_BYTES, SEALED_BLOCK_MAX_BYTES
from holdfast.erasure.code import BlockRef, Code, Matrix

HASH_BYTES = 32
LEAF_KEY = blake3(b"holdfast v1 fragment leaf").digest()
ROOT_KEY = blake3(b"holdfast v1 fragment root").digest()
BLOCK_KEY = blake3(b"holdfast v1 block id").digest()

VERSION = 1
HEADER = struct.Struct("<BBBBI")
MATRIX_NUMBERS = {Matrix.COPIES: 0, Matrix.CAUCHY: 1, Matrix.VANDERMONDE: 2}
MATRICES = {number: matrix for matrix, number in MATRIX_NUMBERS.items()}

# Pieces are padded to whole cache lines: vector code then never meets a short tail, and 64 bytes in 256 KiB is nothing.
PIECE_MULTIPLE_BYTES = 64


def payload_bytes(code: Code, length: int) -> int:
    """Length of each payload of a sealed block of `length` bytes: the block itself for copies, else a padded k-th."""
    if code.matrix is Matrix.COPIES:
        return length
    piece = -(-length // code.k)
    return -(-piece // PIECE_MULTIPLE_BYTES) * PIECE_MULTIPLE_BYTES


def leaf_count(length: int) -> int:
    return -(-length // LEAF_BYTES)


def leaf_hashes(data: Buffer) -> bytes:
    """The hashes of the leaves of `data`, which begins on a leaf's boundary, one after the other. Releases the GIL."""
    view = memoryview(data)
    return b"".join(
        blake3(view[start : start + LEAF_BYTES], key=LEAF_KEY).digest() for start in range(0, len(view), LEAF_BYTES)
    )


def merkle_root(length: int, leaves: bytes) -> bytes:
    """The root over a payload of `length` bytes with these leaf hashes."""
    return blake3(length.to_bytes(8, "little") + leaves, key=ROOT_KEY).digest()


def block_id(commitment: bytes) -> BlockId:
    """The id of the block with this encoded commitment."""
    return BlockId(blake3(commitment, key=BLOCK_KEY).digest())


class Commitment(Struct, frozen=True):
    """What a block's id commits to.

    `code` has m = 0 for copies. `roots` has k+m entries of HASH_BYTES, one for copies. `length` is that of the sealed
    block, bytes.
    """

    code: Code
    length: int
    roots: tuple[bytes, ...]

    def encode(self) -> bytes:
        header = HEADER.pack(VERSION, MATRIX_NUMBERS[self.code.matrix], self.code.k, self.code.m, self.length)
        return header + b"".join(self.roots)

    @property
    def payload_bytes(self) -> int:
        """Bytes of each payload."""
        return payload_bytes(self.code, self.length)

    def root(self, index: int) -> bytes:
        """The root of fragment `index`. Raises Corrupt where the block has no such fragment."""
        is_copies = self.code.matrix is Matrix.COPIES
        if not 0 <= index < (COPIES_MAX_COUNT if is_copies else self.code.width):
            raise Corrupt(f"a block of {self.code} has no fragment {index}")
        return self.roots[0 if is_copies else index]

    def check(self, index: int, leaves: bytes, start: int, data: Buffer, length: int) -> None:
        """Raise Corrupt unless `data` is what fragment `index` holds from byte `start` on.

        `data` begins and ends on a leaf's boundary, or ends where the payload of `length` bytes does.
        """
        if length != self.payload_bytes or len(leaves) != HASH_BYTES * leaf_count(length):
            raise Corrupt(f"a payload of {length} bytes, {len(leaves)} bytes of leaf hashes: not what was committed to")
        if merkle_root(length, leaves) != self.root(index):
            raise Corrupt(f"the leaf hashes of fragment {index} do not add up to its root")
        end = start + len(data)
        if not 0 <= start < end <= length or start % LEAF_BYTES or (end % LEAF_BYTES and end != length):
            raise Corrupt(f"bytes {start} to {end} are not whole leaves of a payload of {length} bytes")
        first = start // LEAF_BYTES * HASH_BYTES
        if leaf_hashes(data) != leaves[first : first + HASH_BYTES * leaf_count(len(data))]:
            raise Corrupt(f"fragment {index}, bytes {start} to {end}: not the bytes that were committed to")


def decode_commitment(encoded: Buffer) -> Commitment:
    """Parse a commitment. Raises Corrupt for whatever `Commitment.encode` does not make."""
    if len(encoded) < HEADER.size:
        raise Corrupt(f"a commitment of {len(encoded)} bytes")
    version, number, k, m, length = HEADER.unpack_from(encoded)
    if version != VERSION or number not in MATRICES:
        raise Corrupt(f"a commitment of version {version}, matrix {number}")
    try:
        code = Code(MATRICES[number], k, m)
    except InvalidRequest as error:
        raise Corrupt(f"a commitment to an impossible code: {error}") from error
    if code.matrix is Matrix.COPIES and m != 0:
        raise Corrupt("a commitment to the number of copies")
    if not 0 < length <= SEALED_BLOCK_MAX_BYTES:
        raise Corrupt(f"a commitment to a sealed block of {length} bytes")
    roots = bytes(encoded[HEADER.size :])
    if len(roots) != HASH_BYTES * code.width:
        raise Corrupt(f"a commitment of {len(encoded)} bytes for {code}")
    return Commitment(code, length, tuple(roots[i : i + HASH_BYTES] for i in range(0, len(roots), HASH_BYTES)))


def open_commitment(ref: BlockRef, encoded: Buffer) -> Commitment:
    """The commitment of `ref`, checked against its id, code and length. Raises Corrupt."""
    if block_id(bytes(encoded)) != ref.id:
        raise Corrupt("a commitment of another block")
    commitment = decode_commitment(encoded)
    if committed_code(ref.code) != commitment.code or ref.length != commitment.length:
        raise Corrupt(f"committed to {commitment.code} and {commitment.length} bytes, not {ref.code} and {ref.length}")
    return commitment


def committed_code(code: Code) -> Code:
    """The code as a commitment states it: of copies it says only that they are."""
    return Code(Matrix.COPIES, 1, 0) if code.matrix is Matrix.COPIES else code


def check_fragment(
    block: BlockId, index: int, commitment: bytes, leaves: bytes, start: int, data: Buffer, length: int
) -> None:
    """Raise Corrupt unless `data` is what fragment `index` of `block` holds from byte `start` on. Needs no key.

    `start` is a multiple of LEAF_BYTES; `data` is whole leaves, or ends where the payload of `length` bytes does.
    """
    if block_id(commitment) != block:
        raise Corrupt("a commitment of another block")
    decode_commitment(commitment).check(index, leaves, start, data, length)
