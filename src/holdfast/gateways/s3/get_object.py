"""GetObject, HeadObject and GetObjectTorrent."""

from holdfast.core.limits import PARTS_MAX_COUNT
from holdfast.core.ranges import ByteRange
from holdfast.gateways.s3 import conditions, metadata
from holdfast.gateways.s3.body import WHOLE_BODY_MAX_BYTES
from holdfast.gateways.s3.call import Answer, Call, Header, integer, version
from holdfast.gateways.s3.checksums import checksum_type
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.errors import MarkedDeleted
from holdfast.objects.model import ObjectInfo
from holdfast.objects.store import ObjectReader


async def head_object(call: Call) -> Answer:
    """HEAD /bucket/key."""
    info = await find_object(call, version(call))
    status, headers, _ = _prepare(call, info)
    return Answer(status, headers, has_length=True)


async def get_object(call: Call) -> Answer:
    """GET /bucket/key. The bytes come straight from the reader; small ones are sent in one message."""
    try:
        reader = await call.store.open_object(call.bucket, call.key, version(call))
    except MarkedDeleted as error:
        raise delete_marker(call, error.marker) from None
    status, headers, wanted = _prepare(call, reader.info)
    length = reader.info.size if wanted is None else wanted.length
    if length == 0:
        return Answer(status, headers, has_length=True)
    if length <= WHOLE_BODY_MAX_BYTES:
        return Answer(status, headers, await _read_whole(reader, wanted), has_length=True)
    stream = reader.read(wanted)
    # The first piece is awaited here: what cannot be read at all is answered with an error, not with a broken 200.
    first = bytes(await anext(stream))
    return Answer(status, headers, first, stream, has_length=True)


async def get_object_torrent(call: Call) -> Answer:
    """GET /bucket/key?torrent. S3 stopped making torrents in 2022: an object has none, which is no lie to say."""
    await find_object(call, None)
    raise S3Error("NoSuchKey", "There is no torrent of this object.", details={"Key": call.key})


async def _read_whole(reader: ObjectReader, wanted: ByteRange | None) -> bytes:
    """All of a small read. One copy: a buffer may be used again once the next is asked for."""
    pieces = [bytes(piece) async for piece in reader.read(wanted)]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


async def find_object(call: Call, named: str | None) -> ObjectInfo:
    """A version, the newest unless named. Raises S3Error when it is a delete marker."""
    try:
        info = await call.store.object_info(call.bucket, call.key, named)
    except MarkedDeleted as error:
        raise delete_marker(call, error.marker) from None
    if info.delete_marker:
        raise delete_marker(call, info)
    return info


def _prepare(call: Call, info: ObjectInfo) -> tuple[int, list[Header], ByteRange | None]:
    """Status, headers and range of the answer. Raises S3Error for conditions that fail and ranges outside."""
    if info.delete_marker:
        raise delete_marker(call, info)
    modified = info.modified_ns // 1_000_000_000
    headers = metadata.answer_headers(
        call, info, checksums=call.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"
    )
    try:
        conditions.check_read(call.headers, info.etag, modified)
    except S3Error as error:
        # A checksum in a 304 would be taken for that of the empty body.
        error.headers = tuple(_without_checksums(headers)) if error.code == "NotModified" else ()
        raise
    if "partNumber" in call.query:
        wanted = _part(call, info)
        status = 206
    else:
        text = call.headers.get("range")
        applies = text is not None and conditions.range_applies(call.headers, info.etag, modified)
        wanted = conditions.parse_range(text, info.size) if applies else None
        status = 200 if wanted is None else 206
    if status == 206:
        summed = any(header[0].startswith(b"x-amz-checksum-") for header in headers)
        headers = _without_checksums(headers)
        if "partNumber" in call.query and summed:
            headers += _part_checksums(call, info)
        if wanted is not None:
            headers.append((b"content-range", f"bytes {wanted.start}-{wanted.end - 1}/{info.size}".encode("ascii")))
    length = info.size if wanted is None else wanted.length
    headers.append((b"content-length", str(length).encode("ascii")))
    return status, headers, wanted


def _part_checksums(call: Call, info: ObjectInfo) -> list[Header]:
    """Those of the part that is read, with the type of the whole's."""
    number = integer(call, "partNumber", 1, PARTS_MAX_COUNT, minimum=1)
    headers: list[Header] = []
    for algorithm, value in info.checksums.items():
        if algorithm in info.part_checksums:
            part = info.part_checksums[algorithm][number - 1]
            headers.append((f"x-amz-checksum-{algorithm}".encode("ascii"), part.encode("ascii")))
            headers.append((b"x-amz-checksum-type", checksum_type(value).encode("ascii")))
    return headers


def _without_checksums(headers: list[Header]) -> list[Header]:
    return [header for header in headers if not header[0].startswith(b"x-amz-checksum-")]


def _part(call: Call, info: ObjectInfo) -> ByteRange | None:
    """The range of one part of a multipart object; an object put whole is its own part 1."""
    if "range" in call.headers:
        raise S3Error("InvalidRequest", "Cannot specify both Range header and partNumber query parameter")
    number = integer(call, "partNumber", 1, PARTS_MAX_COUNT + 1, minimum=1)
    sizes = info.parts or (info.size,)
    if number > len(sizes):
        raise S3Error("InvalidPart", "The requested partnumber is not satisfiable")
    start = sum(sizes[: number - 1])
    if not sizes[number - 1]:
        return None
    return ByteRange(start, start + sizes[number - 1])


def delete_marker(call: Call, info: ObjectInfo) -> S3Error:
    """What S3 answers for a delete marker: named by its version 405, else as if the key were not there."""
    headers: tuple[Header, ...] = (
        (b"x-amz-delete-marker", b"true"),
        (b"x-amz-version-id", info.version.encode("ascii")),
    )
    if "versionId" in call.query:
        headers += ((b"allow", b"DELETE"),)
        return S3Error(
            "MethodNotAllowed", "The specified method is not allowed against this resource.", headers=headers
        )
    return S3Error("NoSuchKey", "The specified key does not exist.", details={"Key": call.key}, headers=headers)
