"""Multipart uploads: create, upload part, complete, abort, list parts, list uploads.

The checksum of a completed upload is made here from its parts' checksums: of all parts the same algorithm, composite
or of the whole object, as the client asked for when it completes, or as S3 does unless told.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.core.limits import LIST_PAGE_MAX_COUNT, PART_MAX_BYTES, PARTS_MAX_COUNT
from holdfast.gateways.s3 import checksums, metadata, tagging, xml
from holdfast.gateways.s3.body import DOCUMENT_MAX_BYTES
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, Header, integer, iso_date, quoted, unquoted, url_encoder
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.put_object import body_length, open_body
from holdfast.objects.errors import NoSuchUpload
from holdfast.objects.model import CompletedPart, Digests, Part, PutOptions, Upload

_CHECKSUM_ELEMENTS: Mapping[str, str] = {f"Checksum{name.upper()}": name for name in checksums.ALGORITHM_BYTES}


async def create_multipart_upload(call: Call) -> Answer:
    """POST /bucket/key?uploads."""
    algorithm, kind = _wanted_checksum(call)
    wanted = (checksums.DEFAULT_ALGORITHM, checksums.FULL_OBJECT)
    if algorithm is not None:
        wanted = (algorithm, kind or checksums.default_type(algorithm))
    options = PutOptions(
        headers=metadata.system_headers(call.headers),
        user_metadata=metadata.user_metadata(call.headers),
        tags=tagging.from_header(call.headers),
        checksum=wanted,
    )
    upload = await call.store.create_upload(call.bucket, call.key, options)
    headers = [XML_TYPE]
    if algorithm is not None:
        headers.append((b"x-amz-checksum-algorithm", wanted[0].upper().encode("ascii")))
        headers.append((b"x-amz-checksum-type", wanted[1].encode("ascii")))
    parts = [xml.element("Bucket", call.bucket), xml.element("Key", call.key), xml.element("UploadId", upload.id)]
    return Answer(200, headers, xml.document("InitiateMultipartUploadResult", parts))


def _wanted_checksum(call: Call) -> tuple[str | None, str | None]:
    """Algorithm and type that a request names; a pair that S3 does not have is refused."""
    name, kind = call.headers.get("x-amz-checksum-algorithm"), call.headers.get("x-amz-checksum-type")
    algorithm = None if name is None else checksums.algorithm_of(name, "x-amz-checksum-algorithm")
    if kind is None:
        return algorithm, None
    kind = kind.upper()
    if kind not in (checksums.FULL_OBJECT, checksums.COMPOSITE):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    _check_type(algorithm, kind)
    return algorithm, kind


def _check_type(algorithm: str | None, kind: str) -> None:
    if algorithm is None:
        return
    full_only, composite_only = algorithm == "crc64nvme", algorithm.startswith("sha")
    if (kind == checksums.FULL_OBJECT and composite_only) or (kind == checksums.COMPOSITE and full_only):
        raise S3Error(
            "InvalidRequest",
            f"The {kind} checksum type cannot be used with the {algorithm.upper()} checksum algorithm.",
        )


async def upload_part(call: Call) -> Answer:
    """PUT /bucket/key?partNumber&uploadId."""
    number = part_number(call)
    length = body_length(call)
    body, checks = await open_body(call, length)
    options = PutOptions(digests=checks.digests, check=checks.check, size=length, size_max=PART_MAX_BYTES)
    part = await call.store.put_part(call.bucket, call.key, call.query["uploadId"], number, body, options)
    headers: list[Header] = [(b"etag", quoted(part.etag).encode("latin-1"))]
    headers += [
        (f"x-amz-checksum-{algorithm}".encode("ascii"), value.encode("ascii"))
        for algorithm, value in part.checksums.items()
    ]
    return Answer(200, headers)


def part_number(call: Call) -> int:
    text = call.query.get("partNumber", "")
    if not (text.isascii() and text.isdigit()) or len(text) > 9 or not 1 <= int(text) <= PARTS_MAX_COUNT:
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PARTS_MAX_COUNT}, inclusive",
            details={"ArgumentName": "partNumber", "ArgumentValue": text},
        )
    return int(text)


async def abort_multipart_upload(call: Call) -> Answer:
    """DELETE /bucket/key?uploadId."""
    await call.store.abort_upload(call.bucket, call.key, call.query["uploadId"])
    return Answer(204)


async def complete_multipart_upload(call: Call) -> Answer:
    """POST /bucket/key?uploadId. Asked again after it succeeded, it answers the same."""
    conditions = metadata.write_conditions(call)
    document = await call.body.read(DOCUMENT_MAX_BYTES)
    named = _named_parts(xml.parse(document, "CompleteMultipartUpload"))
    size = _announced_size(call)
    upload_id = call.query["uploadId"]
    made = await _made_checksum(call, upload_id, named)

    def check(digests: Digests) -> Mapping[str, str]:
        if size is not None and size != digests.size:
            raise S3Error(
                "InvalidRequest",
                f"The provided 'x-amz-mp-object-size' header value {size} does not match what was computed: "
                f"{digests.size}",
            )
        return made

    info = await call.store.complete_upload(
        call.bucket, call.key, upload_id, named, PutOptions(conditions=conditions, check=check)
    )
    parts = [
        xml.element("Location", f"/{call.bucket}/{call.key}"),
        xml.element("Bucket", call.bucket),
        xml.element("Key", call.key),
        xml.element("ETag", quoted(info.etag)),
    ]
    for algorithm, value in info.checksums.items():
        parts.append(xml.element(f"Checksum{algorithm.upper()}", value))
        parts.append(xml.element("ChecksumType", checksums.checksum_type(value)))
    headers = [XML_TYPE, *metadata.version_header(call, info.version)]
    return Answer(200, headers, xml.document("CompleteMultipartUploadResult", parts))


def _announced_size(call: Call) -> int | None:
    text = call.headers.get("x-amz-mp-object-size")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise S3Error("InvalidRequest", "Value for x-amz-mp-object-size header is invalid.")
    return int(text)


def _named_parts(root: xml.Element) -> list[CompletedPart]:
    named: list[CompletedPart] = []
    for item in root.all("Part"):
        number, etag = item.text_of("PartNumber"), item.text_of("ETag")
        if number is None or etag is None:
            raise xml.malformed()
        number = number.strip()
        if not (number.isascii() and number.isdigit()) or len(number) > 9 or not 1 <= int(number) <= PARTS_MAX_COUNT:
            raise xml.malformed()
        values = {
            _CHECKSUM_ELEMENTS[child.name]: child.text.strip()
            for child in item.children
            if child.name in _CHECKSUM_ELEMENTS and child.text.strip()
        }
        named.append(CompletedPart(int(number), unquoted(etag), values))
    if not named or len(named) > PARTS_MAX_COUNT:
        raise xml.malformed()
    return named


async def _made_checksum(call: Call, upload_id: str, named: Sequence[CompletedPart]) -> Mapping[str, str]:
    """The checksum of the object, from those of the parts as they are stored; none when the parts have none in common.

    A part that is replaced between this look and the completion has another ETag, or the same bytes.
    """
    announced = _announced_checksum(call)
    try:
        declared = (await call.store.upload(call.bucket, call.key, upload_id)).checksum
        stored = await _stored_parts(call, upload_id)
    except NoSuchUpload:
        return {}  # completed before, perhaps: the store knows
    chosen = [stored[part.number] for part in named if part.number in stored]
    common = set(chosen[0].checksums) if len(chosen) == len(named) else set()
    for part in chosen:
        common &= part.checksums.keys()
    if announced is not None and announced.algorithm not in common:
        raise S3Error("InvalidRequest", "The parts were not uploaded with the checksum that the request names.")
    if not common:
        return {}
    if announced is not None:
        algorithm = announced.algorithm
    else:
        algorithm = declared[0] if declared is not None and declared[0] in common else min(common)
    kind = call.headers.get("x-amz-checksum-type", "").upper()
    if not kind and declared is not None and declared[0] == algorithm:
        kind = declared[1]
    if not kind:
        kind = announced.kind if announced is not None else checksums.default_type(algorithm)
    if kind not in (checksums.FULL_OBJECT, checksums.COMPOSITE):
        raise S3Error("InvalidRequest", "Value for x-amz-checksum-type header is invalid.")
    _check_type(algorithm, kind)
    make = checksums.full_object if kind == checksums.FULL_OBJECT else checksums.composite
    value = make(algorithm, chosen)
    if announced is not None and announced.value != value:
        raise S3Error("BadDigest", f"The {algorithm.upper()} you specified did not match the calculated checksum.")
    return {algorithm: value}


@dataclass(frozen=True, slots=True)
class _Announced:
    algorithm: str
    value: str

    @property
    def kind(self) -> str:
        """What it must be a checksum of: those of the SHA family cannot be put together to that of the whole."""
        if self.algorithm.startswith("sha"):
            return checksums.COMPOSITE
        return checksums.checksum_type(self.value)


def _announced_checksum(call: Call) -> _Announced | None:
    """The object's checksum as the request for completion names it."""
    given = [name for name in call.headers if name in checksums.HEADERS]
    if not given:
        return None
    if len(given) > 1:
        raise S3Error("InvalidRequest", "Expecting a single x-amz-checksum- header.")
    return _Announced(given[0].rpartition("-")[2], call.headers[given[0]].strip())


async def _stored_parts(call: Call, upload_id: str) -> dict[int, Part]:
    stored: dict[int, Part] = {}
    more, after = True, 0
    while more:
        page, more = await call.store.list_parts(
            call.bucket, call.key, upload_id, after=after, limit=LIST_PAGE_MAX_COUNT
        )
        stored.update((part.number, part) for part in page)
        after = page[-1].number if page else PARTS_MAX_COUNT
    return stored


async def list_parts(call: Call) -> Answer:
    """GET /bucket/key?uploadId."""
    limit = integer(call, "max-parts", LIST_PAGE_MAX_COUNT, LIST_PAGE_MAX_COUNT)
    after = integer(call, "part-number-marker", 0, PARTS_MAX_COUNT)
    upload_id = call.query["uploadId"]
    page, more = await call.store.list_parts(call.bucket, call.key, upload_id, after=after, limit=max(limit, 1))
    if not limit:
        page, more = [], False
    settings = call.settings
    owner = f"{xml.element('ID', settings.owner_id)}{xml.element('DisplayName', settings.owner_name)}"
    parts = [
        xml.element("Bucket", call.bucket),
        xml.element("Key", call.key),
        xml.element("UploadId", upload_id),
        f"<Initiator>{owner}</Initiator><Owner>{owner}</Owner><StorageClass>STANDARD</StorageClass>",
        f"<PartNumberMarker>{after}</PartNumberMarker>",
        f"<NextPartNumberMarker>{page[-1].number if page else 0}</NextPartNumberMarker>",
        f"<MaxParts>{limit}</MaxParts><IsTruncated>{'true' if more else 'false'}</IsTruncated>",
    ]
    for part in page:
        parts += (
            f"<Part><PartNumber>{part.number}</PartNumber><LastModified>{iso_date(part.modified_ns)}</LastModified>",
            xml.element("ETag", quoted(part.etag)),
            f"<Size>{part.size}</Size>",
            *(xml.element(f"Checksum{name.upper()}", value) for name, value in part.checksums.items()),
            "</Part>",
        )
    return Answer(200, [XML_TYPE], xml.document("ListPartsResult", parts))


async def list_multipart_uploads(call: Call) -> Answer:
    """GET /bucket?uploads."""
    query = call.query
    limit = integer(call, "max-uploads", LIST_PAGE_MAX_COUNT, LIST_PAGE_MAX_COUNT, minimum=1)
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    markers = (query.get("key-marker", ""), query.get("upload-id-marker", "") if query.get("key-marker") else "")
    page = await call.store.list_uploads(call.bucket, prefix=prefix, delimiter=delimiter, after=markers, limit=limit)
    encode = url_encoder(call) or str
    parts = [
        xml.element("Bucket", call.bucket),
        xml.element("KeyMarker", encode(markers[0])),
        xml.element("UploadIdMarker", markers[1]),
    ]
    if page.resume is not None:
        parts.append(xml.element("NextKeyMarker", encode(page.resume[0])))
        parts.append(xml.element("NextUploadIdMarker", page.resume[1]))
    parts.append(xml.element("Prefix", encode(prefix)))
    if delimiter:
        parts.append(xml.element("Delimiter", encode(delimiter)))
    if "encoding-type" in query:
        parts.append("<EncodingType>url</EncodingType>")
    parts.append(
        f"<MaxUploads>{limit}</MaxUploads><IsTruncated>{'true' if page.resume is not None else 'false'}</IsTruncated>"
    )
    settings = call.settings
    owner = f"{xml.element('ID', settings.owner_id)}{xml.element('DisplayName', settings.owner_name)}"
    for upload in page.uploads:
        parts += _upload(upload, encode(upload.key), owner)
    parts += [f"<CommonPrefixes>{xml.element('Prefix', encode(folded))}</CommonPrefixes>" for folded in page.prefixes]
    return Answer(200, [XML_TYPE], xml.document("ListMultipartUploadsResult", parts))


def _upload(upload: Upload, key: str, owner: str) -> list[str]:
    return [
        "<Upload>",
        xml.element("Key", key),
        xml.element("UploadId", upload.id),
        f"<Initiator>{owner}</Initiator><Owner>{owner}</Owner><StorageClass>STANDARD</StorageClass>",
        f"<Initiated>{iso_date(upload.created_ns)}</Initiated></Upload>",
    ]
