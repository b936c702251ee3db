"""CopyObject and UploadPartCopy: puts whose body is an object of the store."""

from urllib.parse import unquote_to_bytes

from holdfast.core.limits import PART_MAX_BYTES
from holdfast.core.ranges import ByteRange
from holdfast.gateways.s3 import checksums, conditions, metadata, tagging, xml
from holdfast.gateways.s3.body import DOCUMENT_MAX_BYTES
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, Header, check_key, is_bucket_name, iso_date, quoted
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.multipart import part_number
from holdfast.objects.access import READ
from holdfast.objects.model import NULL_VERSION, CopyOptions, CopySource, ObjectInfo

_HEADER = "x-amz-copy-source"
_VERSION = b"?versionId="


def parse_source(text: str) -> tuple[str, str, str | None]:
    """Bucket, key and version of a copy's source: `/bucket/key?versionId=...`, percent-encoded. Raises S3Error.

    The version is split off before decoding, so that a key may hold a question mark, written as %3F.
    """
    path, separator, version = text.encode("latin-1").partition(_VERSION)
    try:
        bucket, _, key = unquote_to_bytes(path).decode().removeprefix("/").partition("/")
        named = unquote_to_bytes(version).decode() if separator else None
    except UnicodeDecodeError:
        raise _bad_source(text) from None
    if not bucket or not key or named == "":
        raise _bad_source(text)
    if not is_bucket_name(bucket):
        raise S3Error("NoSuchBucket", "The specified bucket does not exist", details={"BucketName": bucket})
    check_key(key)
    return bucket, key, named


def _source(call: Call) -> tuple[str, str, str | None]:
    """Raises AccessDenied, too, when the caller may not read there."""
    source = parse_source(call.headers[_HEADER])
    call.access.require(source[0], READ)
    return source


def _bad_source(text: str) -> S3Error:
    return S3Error(
        "InvalidArgument",
        "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
        details={"ArgumentName": _HEADER, "ArgumentValue": text},
    )


async def copy_object(call: Call) -> Answer:
    """PUT /bucket/key with x-amz-copy-source. Nothing is copied but the names of the blocks."""
    bucket, key, named = _source(call)
    replaces = _replaces(call, "x-amz-metadata-directive")
    algorithm = call.headers.get("x-amz-checksum-algorithm")
    if (bucket, key, named) == (call.bucket, call.key, None) and not replaces and algorithm is None:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself without changing the "
            "object's metadata, storage class, website redirect location or encryption attributes.",
        )
    options = CopyOptions(
        headers=metadata.system_headers(call.headers) if replaces else None,
        user_metadata=metadata.user_metadata(call.headers) if replaces else None,
        tags=tagging.from_header(call.headers) if _replaces(call, "x-amz-tagging-directive") else None,
        checksum=None if algorithm is None else checksums.algorithm_of(algorithm, "x-amz-checksum-algorithm"),
        conditions=metadata.write_conditions(call),
    )
    await _no_body(call)

    def check(info: ObjectInfo) -> None:
        conditions.check_source(call.headers, info.etag, info.modified_ns // 1_000_000_000)
        _check_size(info.size)

    copied = await call.store.copy_object(CopySource(bucket, key, named, check), call.bucket, call.key, options)
    made = copied.made
    headers = [XML_TYPE, *metadata.version_header(call, made.version), *_source_version(copied.source, named)]
    parts = [xml.element("LastModified", iso_date(made.modified_ns)), xml.element("ETag", quoted(made.etag))]
    for name, value in made.checksums.items():
        parts.append(xml.element(f"Checksum{name.upper()}", value))
        parts.append(xml.element("ChecksumType", checksums.checksum_type(value)))
    return Answer(200, headers, xml.document("CopyObjectResult", parts))


async def upload_part_copy(call: Call) -> Answer:
    """PUT /bucket/key?partNumber&uploadId with x-amz-copy-source."""
    number = part_number(call)
    bucket, key, named = _source(call)
    text = call.headers.get("x-amz-copy-source-range")
    wanted: ByteRange | None = conditions.parse_source_range(text)
    await _no_body(call)

    def check(info: ObjectInfo) -> None:
        conditions.check_source(call.headers, info.etag, info.modified_ns // 1_000_000_000)
        if wanted is not None and text is not None and wanted.end > info.size:
            raise conditions.unsatisfiable(text, info.size)
        _check_size(info.size if wanted is None else wanted.length)

    source = CopySource(bucket, key, named, check)
    copied = await call.store.copy_part(source, wanted, call.bucket, call.key, call.query["uploadId"], number)
    made = copied.made
    parts = [xml.element("LastModified", iso_date(made.modified_ns)), xml.element("ETag", quoted(made.etag))]
    parts += [xml.element(f"Checksum{name.upper()}", value) for name, value in made.checksums.items()]
    return Answer(200, [XML_TYPE, *_source_version(copied.source, named)], xml.document("CopyPartResult", parts))


def _replaces(call: Call, directive: str) -> bool:
    text = call.headers.get(directive, "COPY")
    if text not in ("COPY", "REPLACE"):
        raise S3Error("InvalidArgument", f"Unknown {directive}.", details={"ArgumentName": directive})
    return text == "REPLACE"


def _check_size(size: int) -> None:
    """S3 copies no more than 5 GiB at once."""
    if size > PART_MAX_BYTES:
        raise S3Error(
            "InvalidRequest",
            f"The specified copy source is larger than the maximum allowable size for a copy source: {PART_MAX_BYTES}",
        )


async def _no_body(call: Call) -> None:
    """The request's signature is of its body too: it is read, and must be empty."""
    if call.body.length != 0 and await call.body.read(DOCUMENT_MAX_BYTES):
        raise S3Error("InvalidRequest", "A copy has no body.")


def _source_version(source: ObjectInfo, named: str | None) -> list[Header]:
    if source.version == NULL_VERSION and named is None:
        return []
    return [(b"x-amz-copy-source-version-id", source.version.encode("ascii"))]
