"""The log's records as bytes: docs/formats/log.md. No I/O.

Rules. A record is one batch of commits. It begins on an ALIGN_BYTES boundary and is padded to the next, so that no
later write touches a block that holds an acknowledged one. Its hash covers its header, the hash of the record before
it, and its payload: a record that was torn, rotted, or left over from an earlier use of the same place on disk does
not follow from the one before it, and so is not there. The chain begins at a hash of the store's id.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from blake3 import blake3
from msgspec import Struct

from holdfast.core.errors import Corrupt
from holdfast.core.ids import RANDOM_ID_BYTES, Buffer, StoreId
from holdfast.core.limits import COMMIT_CHANGES_MAX_COUNT, ROW_KEY_MAX_BYTES, ROW_VALUE_MAX_BYTES

MAGIC = b"HFL1"
HASH_BYTES = 32

# What a disk writes whole, or a file system caches as one page: the unit that a power cut can tear.
ALIGN_BYTES = 4096

# magic, payload length, epoch, sequence, hash of the record before, hash of this record
_HEADER = struct.Struct("<4sIQQ32s32s")
HEADER_BYTES = _HEADER.size
_HASHED_BYTES = HEADER_BYTES - HASH_BYTES

# Bounds what a reader allocates for a length that it has not verified yet: one commit at its limits (32 MiB of keys
# and values), and what msgpack adds to 16,384 rows of it.
PAYLOAD_MAX_BYTES = 40 * 1024 * 1024

# What is gathered for one record before the rest waits for the next: long enough to amortise the sync, short enough
# that nobody waits long for the bytes of others.
BATCH_MAX_BYTES = 4 * 1024 * 1024
BATCH_MAX_COUNT = 1024

LoggedChange = tuple[bytes, ...]
"""(key, value) writes a row, (key,) removes one."""

LoggedCommit = tuple[bytes, Sequence[LoggedChange]]
"""A token, and the changes that it stands on."""


class Record(Struct, frozen=True):
    """One batch of commits, as it was read and verified."""

    epoch: int
    sequence: int
    hash: bytes
    payload: bytes
    length: int
    """Bytes in the log, padding included."""


class Position(NamedTuple):
    """A place in the chain, and where on each mirror it is: what the next record follows."""

    segment: int
    """The segment's name: the sequence of its first record."""
    last: int
    """Offset at which the last record begins; of no meaning while `offset` is 0."""
    offset: int
    """Offset behind the last record."""
    sequence: int
    """Of the last record; 0 before the first."""
    hash: bytes
    """Of the last record."""


_POSITION = struct.Struct("<QQQQ32s")


def genesis(store: StoreId) -> Position:
    """Where every log of a store begins."""
    return Position(1, 0, 0, 0, blake3(b"holdfast metadata log 1" + store).digest())


def encode_position(position: Position) -> bytes:
    return _POSITION.pack(*position)


def decode_position(raw: Buffer) -> Position:
    """Raises Corrupt."""
    if len(raw) != _POSITION.size:
        raise Corrupt("not a place in the log")
    return Position(*_POSITION.unpack(raw))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[tuple[bytes, list[list[bytes]]]])


def encode_payload(commits: Sequence[LoggedCommit]) -> bytes:
    """Commits as a record carries them."""
    return _encoder.encode(commits)


def decode_payload(payload: Buffer) -> list[LoggedCommit]:
    """The commits of a record whose hash held. Raises Corrupt when it is not what `encode_payload` makes."""
    try:
        commits = _decoder.decode(payload)
    except msgspec.MsgspecError as error:
        raise Corrupt("a log record's payload is not well formed") from error
    for token, changes in commits:
        if len(token) != RANDOM_ID_BYTES or len(changes) > COMMIT_CHANGES_MAX_COUNT:
            raise Corrupt("a log record holds a commit beyond the limits")
        for change in changes:
            if not 1 <= len(change) <= 2 or not 0 < len(change[0]) <= ROW_KEY_MAX_BYTES:
                raise Corrupt("a log record holds a change beyond the limits")
            if len(change) == 2 and len(change[1]) > ROW_VALUE_MAX_BYTES:
                raise Corrupt("a log record holds a value beyond the limits")
    return [(token, [tuple(change) for change in changes]) for token, changes in commits]


def encode_record(payload: Buffer, *, epoch: int, after: Position) -> tuple[list[Buffer], bytes, int]:
    """A record that follows `after`: the buffers to write one after the other, its hash, and their length."""
    assert 0 < len(payload) <= PAYLOAD_MAX_BYTES
    sequence = after.sequence + 1
    head = _HEADER.pack(MAGIC, len(payload), epoch, sequence, after.hash, bytes(HASH_BYTES))[:_HASHED_BYTES]
    own = blake3(head).update(payload).digest()
    length = record_bytes(len(payload))
    padding = bytes(length - HEADER_BYTES - len(payload))
    return [head + own, payload, padding], own, length


def record_bytes(payload_bytes: int) -> int:
    """Bytes that a record takes in the log."""
    return -(-(HEADER_BYTES + payload_bytes) // ALIGN_BYTES) * ALIGN_BYTES


def payload_bytes(header: Buffer, after: Position) -> int | None:
    """How long a payload a record's header announces; None when no record that follows `after` begins so."""
    if len(header) < HEADER_BYTES:
        return None
    magic, length, _, sequence, previous, _ = _HEADER.unpack_from(header)
    if magic != MAGIC or sequence != after.sequence + 1 or previous != after.hash:
        return None
    return length if 0 < length <= PAYLOAD_MAX_BYTES else None


def comes_later(header: Buffer, after: Position, most: int) -> bool:
    """Whether a header says that its record comes behind the one that would follow `after`, by at most `most` records.

    Rows' keys are not sealed, and a client chooses its own: what a record that was cut off left behind may look like a
    header. So only a sequence counts that a record there could have.
    """
    if len(header) < HEADER_BYTES:
        return False
    magic, length, _, sequence, _, _ = _HEADER.unpack_from(header)
    return bool(magic == MAGIC and 0 < length <= PAYLOAD_MAX_BYTES and 1 < sequence - after.sequence <= 1 + most)


def decode_record(raw: Buffer, after: Position) -> Record | None:
    """The record that begins `raw` and follows `after`; None when there is none, or it is not whole."""
    length = payload_bytes(raw, after)
    if length is None or len(raw) < HEADER_BYTES + length:
        return None
    _, _, epoch, sequence, _, own = _HEADER.unpack_from(raw)
    payload = bytes(raw[HEADER_BYTES : HEADER_BYTES + length])
    if blake3(bytes(raw[:_HASHED_BYTES])).update(payload).digest() != own:
        return None
    return Record(epoch, sequence, own, payload, record_bytes(length))


def following(position: Position, segment: int, offset: int, record_hash: bytes, length: int) -> Position:
    """Where the log stands once a record of `length` bytes, at `offset` of `segment`, has followed `position`."""
    return Position(segment, offset, offset + length, position.sequence + 1, record_hash)
