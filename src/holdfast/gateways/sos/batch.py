"""Many small blobs in one request: what our own servers say to each other. docs/formats/sos-batch.md.

    POST /batch/put   array of [id, headers, bytes]       200 array of [id, status, size, message]
    POST /batch/get   array of ids                        200 array of [id, status, headers, bytes]

Each blob has the status that a request of its own would have had. One that is asked for and not small is answered
ALONE. An original server has no such route; whoever asks it goes on with a request for each.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from holdfast.core.errors import InvalidRequest
from holdfast.core.limits import KIB, MIB
from holdfast.gateways.sos.blobs import SmallBlob, headers_bytes

T = TypeVar("T")

CONTENT_TYPE = "application/msgpack"

PUT_PATH = "/batch/put"
GET_PATH = "/batch/get"

# Of a blob: above this, a request of its own costs less than keeping it in memory.
SMALL_MAX_BYTES = 64 * KIB

# Of a batch, in either direction: both ends hold it in memory. A hundred times more is saved by the first blobs of it
# than by those behind these.
BATCH_MAX_BYTES = MIB
BATCH_MAX_COUNT = 512

# A request is taken if it is as long as this: the last blob of a batch may go beyond its limit, and msgpack adds some.
MESSAGE_MAX_BYTES = 2 * BATCH_MAX_BYTES

ALONE = 413
"""The status of a blob that is there and must be asked for by itself."""


class Put(msgspec.Struct, array_like=True, frozen=True):
    """What became of a blob that was put."""

    id: str
    status: int
    size: int = 0
    message: str = ""


class Got(msgspec.Struct, array_like=True, frozen=True):
    """A blob that was asked for; no bytes unless the status is 200."""

    id: str
    status: int
    headers: dict[str, str] = {}
    data: bytes = b""


encode = msgspec.msgpack.Encoder().encode
_blobs = msgspec.msgpack.Decoder(list[SmallBlob])
_ids = msgspec.msgpack.Decoder(list[str])
_puts = msgspec.msgpack.Decoder(list[Put])
_gots = msgspec.msgpack.Decoder(list[Got])


def weight(blob: SmallBlob) -> int:
    """What it counts of BATCH_MAX_BYTES."""
    return len(blob.data) + headers_bytes(blob.headers)


def decode_blobs(data: bytes) -> list[SmallBlob]:
    """What is to be put. Raises InvalidRequest."""
    return _decoded(_blobs, data)


def decode_ids(data: bytes) -> list[str]:
    """What is asked for. Raises InvalidRequest."""
    return _decoded(_ids, data)


def decode_puts(data: bytes, wanted: Sequence[str]) -> list[Put]:
    """An answer, for these ids in this order. Raises InvalidRequest."""
    answer = _decoded(_puts, data)
    if [put.id for put in answer] != list(wanted):
        raise InvalidRequest("the answer is for other blobs")
    return answer


def decode_gots(data: bytes, wanted: Sequence[str]) -> list[Got]:
    """An answer, for these ids in this order. Raises InvalidRequest."""
    answer = _decoded(_gots, data)
    if [got.id for got in answer] != list(wanted):
        raise InvalidRequest("the answer is for other blobs")
    return answer


def _decoded(decoder: msgspec.msgpack.Decoder[list[T]], data: bytes) -> list[T]:
    try:
        found = decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"this is no batch: {error}") from None
    if len(found) > BATCH_MAX_COUNT:
        raise InvalidRequest(f"a batch has at most {BATCH_MAX_COUNT} blobs")
    return found
