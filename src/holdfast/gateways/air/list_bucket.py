"""GET /list/{bucket}?prefix=P: every version that can be read, in one JSON document, sent as it is found.

Names come in the order of their bytes, the versions of a name oldest first, so that the last one of a name is its
newest. The store tells them newest first; what is turned round at a time is bounded.
"""

from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from holdfast.core.limits import KIB
from holdfast.gateways.air.call import JSON_TYPE, SUCCESS, Answer, Call
from holdfast.objects.model import ObjectInfo

# Versions of one name that are turned round at once: a few MiB. A name that has more comes in runs, the newest first.
RUN_MAX_COUNT = 10_000

_PIECE_BYTES = 64 * KIB


class Entry(msgspec.Struct):
    """One version, as it is listed."""

    filename: str
    version: str
    size: int
    content_type: str | None


async def list_bucket(call: Call) -> Answer:
    """`time_taken` stands at the end of the document, so it is that of all of it."""
    document = _document(call)
    # The first page is read here: a bucket that is not there is a 404, not a broken 200.
    first = await anext(document)
    return Answer(200, [JSON_TYPE], first, document)


async def _document(call: Call) -> AsyncGenerator[bytes, None]:
    piece = bytearray(b'{"message":"%s","data":[' % SUCCESS.encode("ascii"))
    encoder = msgspec.json.Encoder()
    comma = b""
    async for info in _oldest_first(_versions(call)):
        entry = Entry(info.key, str(info.number), info.size, info.headers.get("content-type"))
        piece += comma
        piece += encoder.encode(entry)
        comma = b","
        if len(piece) >= _PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    piece += b'],"time_taken":%s}' % encoder.encode(call.seconds())
    yield bytes(piece)


async def _oldest_first(versions: AsyncIterator[ObjectInfo]) -> AsyncIterator[ObjectInfo]:
    run: list[ObjectInfo] = []
    async for info in versions:
        if run and (info.key != run[0].key or len(run) == RUN_MAX_COUNT):
            for older in reversed(run):
                yield older
            run.clear()
        run.append(info)
    for older in reversed(run):
        yield older


async def _versions(call: Call) -> AsyncIterator[ObjectInfo]:
    """Page by page, without deletions."""
    prefix = call.query.get("prefix", "")
    after: tuple[str, str] | None = None
    while True:
        page = await call.store.list_versions(call.bucket, prefix=prefix, after=after)
        for info in page.objects:
            if not info.delete_marker:
                yield info
        if page.resume is None:
            return
        after = page.objects[-1].key, page.objects[-1].version
