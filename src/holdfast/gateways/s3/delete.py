"""DeleteObject and DeleteObjects."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from holdfast.core.errors import HoldfastError
from holdfast.core.limits import DELETE_BATCH_MAX_COUNT
from holdfast.gateways.s3 import checksums, metadata, xml
from holdfast.gateways.s3.body import DOCUMENT_MAX_BYTES
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, Header, unquoted, version
from holdfast.gateways.s3.errors import S3Error, from_holdfast, not_implemented
from holdfast.objects.access import READ
from holdfast.objects.model import NO_CONDITIONS, Conditions, Deleted

# S3 has these two conditions on directory buckets only; here every bucket has them.
_IF_SIZE = "x-amz-if-match-size"
_IF_MODIFIED = "x-amz-if-match-last-modified-time"
CONDITION_HEADERS = frozenset((_IF_SIZE, _IF_MODIFIED))
_ELEMENTS = frozenset(("Key", "VersionId", "ETag", "Size", "LastModifiedTime"))


async def delete_object(call: Call) -> Answer:
    """DELETE /bucket/key. A key that is not there is no error."""
    conditions = metadata.write_conditions(call)
    if conditions.if_none_match or conditions.unless_match is not None:
        raise not_implemented("If-None-Match")
    size, modified = call.headers.get(_IF_SIZE), call.headers.get(_IF_MODIFIED)
    if size is not None or modified is not None:
        call.access.require(call.bucket, READ)
        conditions = msgspec.structs.replace(
            conditions,
            if_size=None if size is None else _size(size),
            if_modified_seconds=None if modified is None else _seconds(modified),
        )
    deleted = await call.store.delete_object(call.bucket, call.key, version(call), conditions)
    headers: list[Header] = []
    if deleted.version is not None:
        headers.append((b"x-amz-version-id", deleted.version.encode("ascii")))
    if deleted.delete_marker:
        headers.append((b"x-amz-delete-marker", b"true"))
    return Answer(204, headers)


async def delete_objects(call: Call) -> Answer:
    """POST /bucket?delete. One answer for each key, in the order asked."""
    checks = checksums.from_headers(call.headers, call.body.decoder)
    document = await call.body.read(DOCUMENT_MAX_BYTES)
    checksums.check_document(checks, document)
    root = xml.parse(document, "Delete")
    quiet = (root.text_of("Quiet") or "").strip().lower() == "true"
    asked = [_asked(item) for item in root.all("Object")]
    if any(conditions is not NO_CONDITIONS for _, _, conditions in asked):
        call.access.require(call.bucket, READ)
    if not 1 <= len(asked) <= DELETE_BATCH_MAX_COUNT:
        raise xml.malformed()
    results = await call.store.delete_objects(call.bucket, asked)
    parts: list[str] = []
    for (key, named, _), result in zip(asked, results, strict=True):
        if isinstance(result, HoldfastError):
            parts += _failed(key, named, result)
        elif not quiet:
            parts += _deleted(key, named, result)
    return Answer(200, [XML_TYPE], xml.document("DeleteResult", parts))


def _asked(item: xml.Element) -> tuple[str, str | None, Conditions]:
    """Key, version, and what must hold of it."""
    for child in item.children:
        if child.name not in _ELEMENTS:
            raise not_implemented(child.name)
    key = item.text_of("Key")
    if key is None:
        raise xml.malformed()
    etag, size, modified = (item.text_of(name) for name in ("ETag", "Size", "LastModifiedTime"))
    conditions = NO_CONDITIONS
    if etag or size or modified:
        conditions = Conditions(
            if_match=unquoted(etag) if etag else None,
            if_size=_size(size) if size else None,
            if_modified_seconds=_seconds(modified) if modified else None,
        )
    return key, item.text_of("VersionId") or None, conditions


def _size(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise S3Error("InvalidArgument", "The size to match is not a number of bytes")
    return int(text)


def _seconds(text: str) -> int:
    """Of a time as HTTP writes it, or as listings do; parts of a second do not count."""
    try:
        return int(parsedate_to_datetime(text.strip()).timestamp())
    except (ValueError, TypeError, OverflowError, IndexError):
        pass
    try:
        moment = datetime.fromisoformat(text.strip())
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        raise S3Error("InvalidArgument", "The last-modified time to match is not a time") from None


def _failed(key: str, named: str | None, error: HoldfastError) -> list[str]:
    answer = from_holdfast(error)
    return [
        "<Error>",
        xml.element("Key", key),
        xml.element("VersionId", named) if named else "",
        xml.element("Code", answer.code),
        xml.element("Message", answer.message),
        "</Error>",
    ]


def _deleted(key: str, named: str | None, deleted: Deleted) -> list[str]:
    parts = ["<Deleted>", xml.element("Key", key)]
    if named is not None:
        parts.append(xml.element("VersionId", named))
    if deleted.delete_marker:
        parts.append("<DeleteMarker>true</DeleteMarker>")
        if deleted.version is not None:
            parts.append(xml.element("DeleteMarkerVersionId", deleted.version))
    parts.append("</Deleted>")
    return parts
