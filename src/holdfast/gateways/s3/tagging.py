"""Tags of objects and of buckets: the verbs, the document, and the header `x-amz-tagging`."""

from collections.abc import Mapping, Sequence
from urllib.parse import unquote_to_bytes

from holdfast.gateways.s3 import checksums, metadata, xml
from holdfast.gateways.s3.body import DOCUMENT_MAX_BYTES
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, version
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.get_object import delete_marker, find_object
from holdfast.objects.errors import MarkedDeleted
from holdfast.objects.tags import OBJECT_TAGS_MAX_COUNT, check_tags

_HEADER = "x-amz-tagging"


def from_header(headers: Mapping[str, str]) -> dict[str, str]:
    """The tags that a write gives its object. Raises S3Error, InvalidTag."""
    text = headers.get(_HEADER)
    return check_tags(parse_header(text), OBJECT_TAGS_MAX_COUNT) if text else {}


def parse_header(text: str) -> list[tuple[str, str]]:
    """Tags written as the query of a URL. Raises InvalidArgument for what is none, or names a key twice."""
    pairs: list[tuple[str, str]] = []
    for field in text.split("&"):
        if not field:
            continue
        key, _, value = field.partition("=")
        try:
            pairs.append((_decode(key), _decode(value)))
        except UnicodeError:
            raise _bad_header() from None
    if len({key for key, _ in pairs}) < len(pairs):
        raise _bad_header()
    return pairs


def _decode(text: str) -> str:
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode()


def _bad_header() -> S3Error:
    return S3Error(
        "InvalidArgument",
        f"The header '{_HEADER}' shall be encoded as UTF-8 then URLEncoded URL query parameters without tag name "
        "duplicates.",
        details={"ArgumentName": _HEADER},
    )


def parse_document(document: bytes) -> list[tuple[str, str]]:
    """The tags in a `Tagging` document. Raises MalformedXML."""
    root = xml.parse(document, "Tagging")
    sets = list(root.all("TagSet"))
    if len(sets) != 1:
        raise xml.malformed()
    tags: list[tuple[str, str]] = []
    for item in sets[0].children:
        key, value = item.text_of("Key"), item.text_of("Value")
        if item.name != "Tag" or key is None or value is None:
            raise xml.malformed()
        tags.append((key, value))
    return tags


async def _read_document(call: Call) -> list[tuple[str, str]]:
    checks = checksums.from_headers(call.headers, call.body.decoder)
    document = await call.body.read(DOCUMENT_MAX_BYTES)
    checksums.check_document(checks, document)
    return parse_document(document)


def _answer(tags: Mapping[str, str], headers: Sequence[tuple[bytes, bytes]] = ()) -> Answer:
    parts = ["<TagSet>"]
    for key, value in sorted(tags.items()):
        parts += ("<Tag>", xml.element("Key", key), xml.element("Value", value), "</Tag>")
    parts.append("</TagSet>")
    return Answer(200, [XML_TYPE, *headers], xml.document("Tagging", parts))


async def get_object_tagging(call: Call) -> Answer:
    """GET /bucket/key?tagging."""
    info = await find_object(call, version(call))
    return _answer(info.tags, metadata.version_header(call, info.version))


async def put_object_tagging(call: Call) -> Answer:
    """PUT /bucket/key?tagging."""
    return await _set(call, await _read_document(call), 200)


async def delete_object_tagging(call: Call) -> Answer:
    """DELETE /bucket/key?tagging."""
    return await _set(call, [], 204)


async def _set(call: Call, tags: list[tuple[str, str]], status: int) -> Answer:
    try:
        info = await call.store.set_tags(call.bucket, call.key, version(call), tags)
    except MarkedDeleted as error:
        raise delete_marker(call, error.marker) from None
    return Answer(status, metadata.version_header(call, info.version))


async def get_bucket_tagging(call: Call) -> Answer:
    """GET /bucket?tagging."""
    bucket = await call.store.bucket(call.bucket)
    if not bucket.tags:
        raise S3Error("NoSuchTagSet", "The TagSet does not exist", details={"BucketName": call.bucket})
    return _answer(bucket.tags)


async def put_bucket_tagging(call: Call) -> Answer:
    """PUT /bucket?tagging."""
    await call.store.set_bucket_tags(call.bucket, await _read_document(call))
    return Answer(204)


async def delete_bucket_tagging(call: Call) -> Answer:
    """DELETE /bucket?tagging."""
    await call.store.set_bucket_tags(call.bucket, [])
    return Answer(204)
