"""GET, HEAD /get/{bucket}/{name}?version=N: the bytes of a version, all or a range of them.

`time_taken` and `speed` stand in front of the bytes, so they tell of what had been done by then: the version found,
and its first piece read and checked; of a small one, all.
"""

import re
from urllib.parse import quote

from holdfast.asgi.messages import Header
from holdfast.core.errors import InvalidRequest
from holdfast.core.limits import KIB
from holdfast.core.ranges import ByteRange, parse_range
from holdfast.gateways.air.call import Answer, Call, speed, version
from holdfast.gateways.air.errors import AirError
from holdfast.gateways.air.put_object import DEFAULT_TYPE
from holdfast.objects.errors import NoSuchVersion
from holdfast.objects.model import ObjectInfo
from holdfast.objects.store import ObjectReader

# Up to this length an answer is read whole and sent in one message.
WHOLE_MAX_BYTES = 64 * KIB

# Kept with an object by S3's clients, and part of what its bytes mean.
_KEPT = ("cache-control", "content-encoding", "content-language", "expires")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


async def get_object(call: Call) -> Answer:
    """The version that the query names, or the newest."""
    reader = await call.store.open_object(call.bucket, call.name, version(call))
    info = reader.info
    if info.delete_marker:
        raise NoSuchVersion("this version says that the object was deleted")
    wanted = _range(call, info)
    length = info.size if wanted is None else wanted.length
    answer = Answer(200 if wanted is None else 206, _headers(call, info), length=length)
    if wanted is not None:
        answer.headers.append((b"content-range", f"bytes {wanted.start}-{wanted.end - 1}/{info.size}".encode("ascii")))
    if call.method != "HEAD" and length:
        await _begin(answer, reader, wanted, length)
    seconds = call.seconds()
    answer.headers += (
        (b"time_taken", b"%.6f" % seconds),
        (b"speed", speed(len(answer.body), seconds).encode("ascii")),
    )
    return answer


async def _begin(answer: Answer, reader: ObjectReader, wanted: ByteRange | None, length: int) -> None:
    """Read the first piece: what cannot be read at all is answered with an error, not with a broken 200."""
    if length <= WHOLE_MAX_BYTES:
        # A buffer may be used again once the next is asked for.
        answer.body = b"".join([bytes(piece) async for piece in reader.read(wanted)])
        return
    answer.stream = reader.read(wanted)
    answer.body = bytes(await anext(answer.stream))


def _range(call: Call, info: ObjectInfo) -> ByteRange | None:
    """The part that is asked for; None is all. If-Range never matches: air gives no validators, versions do better."""
    text = call.headers.get("range")
    if text is None or "if-range" in call.headers:
        return None
    try:
        return parse_range(text, info.size)
    except InvalidRequest as error:
        raise AirError(416, str(error), ((b"content-range", b"bytes */%d" % info.size),)) from None


def _headers(call: Call, info: ObjectInfo) -> list[Header]:
    kept = info.headers
    texts = {
        "content-type": kept.get("content-type", DEFAULT_TYPE),
        "content-disposition": kept.get("content-disposition", _attachment(call.name)),
        **{name: kept[name] for name in _KEPT if name in kept},
    }
    headers = [(name.encode("ascii"), text.encode("latin-1")) for name, text in texts.items()]
    return [*headers, (b"accept-ranges", b"bytes"), (b"version", b"%d" % info.number)]


def _attachment(name: str) -> str:
    """Content-Disposition with the last part of a name. RFC 6266."""
    filename = name.rpartition("/")[2]
    if not filename:
        return "attachment"
    if _TOKEN.fullmatch(filename):
        return f"attachment; filename={filename}"
    return f"attachment; filename*=UTF-8''{quote(filename, safe='')}"
