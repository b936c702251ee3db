"""A sealed block to fragments, and back.

A block of L bytes in k+m is cut into k pieces of `payload_bytes`, the last ones padded with zeroes; m parity pieces
are ISA-L's product of the code's matrix with them. Of copies, each is the block itself. docs/formats/erasure.md
spells the bytes.

Everything here blocks for up to a millisecond or so and is meant for threads: the arithmetic and the hashing release
the GIL. Payloads may be views into the sealed block that was given: it must not change while they are in use.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from holdfast.core.errors import Corrupt, InvalidRequest, NotEnoughFragments
from holdfast.core.ids import Buffer
from holdfast.core.limits import COPIES_MAX_COUNT, KIB, SEALED_BLOCK_MAX_BYTES
from holdfast.erasure import isal
from holdfast.erasure.arena import SHARED
from holdfast.erasure.code import BlockRef, Code, Matrix, copies
from holdfast.erasure.commitment import (
    Commitment,
    block_id,
    committed_code,
    leaf_hashes,
    merkle_root,
    open_commitment,
    payload_bytes,
)

# A data piece smaller than this costs more as one of k+m fragments than the space it saves: each fragment is a record,
# an index row and a drive's turn, whatever its length. docs/adr/0003-erasure-code-and-commitment.md has the numbers.
PIECE_WORTH_CODING_BYTES = 8 * KIB


class CodedBlock(Struct, frozen=True):
    """A block ready to be written.

    `payloads` and `leaves` have one entry per fragment, in order; for copies all are the same objects.
    """

    ref: BlockRef
    commitment: bytes
    payloads: tuple[Buffer, ...]
    leaves: tuple[bytes, ...]


def code_for(length: int, code: Code) -> Code:
    """The code to use for a sealed block of `length` bytes where `code` was asked for.

    A block too small for k+m to pay is kept as m+1 copies, which survive the same losses.
    """
    if code.matrix is Matrix.COPIES or code.m + 1 > COPIES_MAX_COUNT or length >= PIECE_WORTH_CODING_BYTES * code.k:
        return code
    return copies(code.m + 1)


def encode(sealed: Buffer, code: Code) -> CodedBlock:
    """Code a sealed block. Raises InvalidRequest when it is empty or longer than SEALED_BLOCK_MAX_BYTES."""
    view = memoryview(sealed)
    length = len(view)
    if not 0 < length <= SEALED_BLOCK_MAX_BYTES:
        raise InvalidRequest(f"a sealed block of {length} bytes; at most {SEALED_BLOCK_MAX_BYTES}")
    if code.matrix is Matrix.COPIES:
        leaves: tuple[bytes, ...] = (leaf_hashes(view),)
        payloads: tuple[Buffer, ...] = (view,) * code.width
    else:
        payloads = _spread(view, code)
        leaves = tuple(leaf_hashes(payload) for payload in payloads)
    piece = payload_bytes(code, length)
    roots = tuple(merkle_root(piece, of_one) for of_one in leaves)
    commitment = Commitment(committed_code(code), length, roots).encode()
    if code.matrix is Matrix.COPIES:
        leaves *= code.width
    return CodedBlock(BlockRef(block_id(commitment), code, length), commitment, payloads, leaves)


class Room(Struct, frozen=True):
    """Pooled memory for a block's k data pieces, one after the other: what is read into its place needs no joining."""

    whole: memoryview
    places: tuple[memoryview, ...]

    @classmethod
    def of(cls, ref: BlockRef) -> "Room":
        """For the block of `ref`."""
        piece, k = payload_bytes(ref.code, ref.length), ref.code.k
        whole = SHARED.take(k * piece)
        return cls(whole, tuple(whole[i * piece : (i + 1) * piece] for i in range(k)))


def decode(
    ref: BlockRef, payloads: Mapping[int, Buffer], commitment: Commitment | None = None, room: Room | None = None
) -> Buffer:
    """The sealed block, from k or more of its payloads, each already checked against the commitment.

    Payloads that are places of `room` stay there, and the others are put beside them. With `commitment`, pieces that
    had to be computed are checked against it too: whoever committed to fragments that do not belong together is caught
    here. Raises NotEnoughFragments, Corrupt.
    """
    code = ref.code
    if len(payloads) < code.k:
        raise NotEnoughFragments(f"{len(payloads)} of the {code.k} fragments that {code} needs")
    if code.matrix is Matrix.COPIES:
        return next(iter(payloads.values()))
    whole = _join(ref, payloads, room or Room.of(ref))
    if commitment is not None:
        piece = payload_bytes(code, ref.length)
        for index in range(code.k):
            if index not in payloads:
                _check_computed(commitment, index, whole[index * piece : (index + 1) * piece])
    return whole[: ref.length]


def rebuild(
    ref: BlockRef, commitment: bytes, payloads: Mapping[int, Buffer], wanted: Sequence[int]
) -> dict[int, tuple[Buffer, bytes]]:
    """Payload and leaf hashes of the fragments `wanted`, from k or more payloads.

    Every fragment of the block is made again and the whole commitment checked before anything is returned, so a
    repair never writes what does not belong. Raises NotEnoughFragments, Corrupt.
    """
    expected = open_commitment(ref, commitment)
    coded = encode(decode(ref, payloads), ref.code)
    if coded.commitment != commitment:
        raise Corrupt(f"the fragments {sorted(payloads)} do not rebuild the block that was committed to")
    for index in wanted:
        expected.root(index)
    # Of copies there may be fewer in the reference than are wanted: more can be made at any time.
    last = len(coded.payloads) - 1
    return {index: (coded.payloads[min(index, last)], coded.leaves[min(index, last)]) for index in wanted}


def _spread(view: memoryview, code: Code) -> tuple[Buffer, ...]:
    """The k+m pieces: views of the block where a piece lies wholly inside, else of pooled memory."""
    piece = payload_bytes(code, len(view))
    inside = len(view) // piece
    made = SHARED.take((code.width - inside) * piece)
    tail = len(view) - inside * piece
    made[:tail] = view[inside * piece :]
    made[tail : (code.k - inside) * piece] = bytes((code.k - inside) * piece - tail)
    pieces = [view[i * piece : (i + 1) * piece] for i in range(inside)]
    pieces += [made[i * piece : (i + 1) * piece] for i in range(code.width - inside)]
    isal.multiply(isal.parity_tables(code), pieces[: code.k], pieces[code.k :])
    return tuple(pieces)


def _join(ref: BlockRef, payloads: Mapping[int, Buffer], room: Room) -> memoryview:
    """The k data pieces one after the other, padding included, missing ones computed in their place."""
    code, piece = ref.code, payload_bytes(ref.code, ref.length)
    if not all(0 <= index < code.width for index in payloads):
        raise InvalidRequest(f"fragments {sorted(payloads)} of {code}")
    have = tuple(sorted(payloads)[: code.k])
    for index in have:
        if len(payloads[index]) != piece:
            raise Corrupt(f"fragment {index} has {len(payloads[index])} bytes, not {piece}")
        if index < code.k and payloads[index] is not room.places[index]:
            room.places[index][:] = payloads[index]
    missing = tuple(i for i in range(code.k) if i not in payloads)
    if missing:
        tables = isal.recovery_tables(code, have, missing)
        isal.multiply(tables, [payloads[i] for i in have], [room.places[i] for i in missing])
    return room.whole


def _check_computed(commitment: Commitment, index: int, piece: memoryview) -> None:
    if merkle_root(len(piece), leaf_hashes(piece)) != commitment.root(index):
        raise Corrupt(f"data fragment {index}, computed from others, is not the one that was committed to")
