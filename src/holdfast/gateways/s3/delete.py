"""DeleteObject and DeleteObjects."""

from holdfast.core.errors import HoldfastError
from holdfast.core.limits import DELETE_BATCH_MAX_COUNT
from holdfast.gateways.s3 import checksums, metadata, xml
from holdfast.gateways.s3.body import DOCUMENT_MAX_BYTES
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, Header, version
from holdfast.gateways.s3.errors import from_holdfast, not_implemented
from holdfast.objects.model import Deleted


async def delete_object(call: Call) -> Answer:
    """DELETE /bucket/key. A key that is not there is no error."""
    conditions = metadata.write_conditions(call)
    if conditions.if_none_match or conditions.unless_match is not None:
        raise not_implemented("If-None-Match")
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
    if not 1 <= len(asked) <= DELETE_BATCH_MAX_COUNT:
        raise xml.malformed()
    results = await call.store.delete_objects(call.bucket, asked)
    parts: list[str] = []
    for (key, named), result in zip(asked, results, strict=True):
        if isinstance(result, HoldfastError):
            parts += _failed(key, named, result)
        elif not quiet:
            parts += _deleted(key, named, result)
    return Answer(200, [XML_TYPE], xml.document("DeleteResult", parts))


def _asked(item: xml.Element) -> tuple[str, str | None]:
    """Key and version to delete. A condition on one of them (ETag, size, time) is not carried out: 501."""
    for child in item.children:
        if child.name not in ("Key", "VersionId"):
            raise not_implemented(child.name)
    key = item.text_of("Key")
    if key is None:
        raise xml.malformed()
    return key, item.text_of("VersionId") or None


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
