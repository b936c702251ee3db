"""ListObjectsV2, ListObjects and ListObjectVersions."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterable

from holdfast.core.limits import LIST_PAGE_MAX_COUNT
from holdfast.gateways.s3 import xml
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, integer, iso_date, url_encoder
from holdfast.gateways.s3.checksums import checksum_type
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.model import Listing, ObjectInfo

_EMPTY = Listing((), (), None)
Encoder = Callable[[str], str]


async def list_objects_v2(call: Call) -> Answer:
    """GET /bucket?list-type=2."""
    query = call.query
    if query["list-type"] != "2":
        raise S3Error("InvalidArgument", "Invalid List Type specified in Request")
    limit = integer(call, "max-keys", LIST_PAGE_MAX_COUNT, LIST_PAGE_MAX_COUNT)
    token = query.get("continuation-token")
    after = query.get("start-after", "")
    resume = _open_token(token) if token else None
    page = await _page(call, limit, after="" if resume else after, resume=resume)
    encode = url_encoder(call) or _plain
    parts = _head(call, encode, limit)
    if token is not None:
        parts.append(xml.element("ContinuationToken", token))
    if "start-after" in query and (after or not token):
        parts.append(xml.element("StartAfter", encode(after)))
    parts.append(xml.element("KeyCount", str(len(page.objects) + len(page.prefixes))))
    if page.resume is not None:
        parts.append(xml.element("NextContinuationToken", urlsafe_b64encode(page.resume.encode()).decode("ascii")))
    parts.append(f"<IsTruncated>{'true' if page.resume is not None else 'false'}</IsTruncated>")
    owner = _owner(call, "Owner") if query.get("fetch-owner", "").lower() == "true" else ""
    _contents(parts, page.objects, encode, owner)
    _prefixes(parts, page.prefixes, encode)
    return Answer(200, [XML_TYPE], xml.document("ListBucketResult", parts))


async def list_objects(call: Call) -> Answer:
    """GET /bucket."""
    limit = integer(call, "max-keys", LIST_PAGE_MAX_COUNT, LIST_PAGE_MAX_COUNT)
    marker = call.query.get("marker", "")
    page = await _page(call, limit, after=marker, resume=None)
    encode = url_encoder(call) or _plain
    parts = _head(call, encode, limit)
    # boto3 decodes every element of this answer but the prefix.
    prefix = call.query.get("prefix", "")
    parts[1] = xml.element("Prefix", prefix if xml.is_legal(prefix) else encode(prefix))
    parts.append(xml.element("Marker", encode(marker)))
    if page.resume is not None and call.query.get("delimiter"):
        parts.append(xml.element("NextMarker", encode(_last(page))))
    parts.append(f"<IsTruncated>{'true' if page.resume is not None else 'false'}</IsTruncated>")
    _contents(parts, page.objects, encode, _owner(call, "Owner"))
    _prefixes(parts, page.prefixes, encode)
    return Answer(200, [XML_TYPE], xml.document("ListBucketResult", parts))


async def list_object_versions(call: Call) -> Answer:
    """GET /bucket?versions."""
    query = call.query
    limit = integer(call, "max-keys", LIST_PAGE_MAX_COUNT, LIST_PAGE_MAX_COUNT)
    key_marker, version_marker = query.get("key-marker", ""), query.get("version-id-marker", "")
    if version_marker and not key_marker:
        raise S3Error("InvalidArgument", "A version-id marker cannot be specified without a key marker.")
    if limit:
        page = await call.store.list_versions(
            call.bucket,
            prefix=query.get("prefix", ""),
            delimiter=query.get("delimiter", ""),
            after=(key_marker, version_marker) if key_marker else None,
            limit=limit,
        )
    else:
        await call.store.bucket(call.bucket)
        page = _EMPTY
    encode = url_encoder(call) or _plain
    parts = _head(call, encode, limit)
    parts.append(xml.element("KeyMarker", encode(key_marker)))
    parts.append(xml.element("VersionIdMarker", version_marker))
    if page.resume is not None:
        last = _last(page)
        parts.append(xml.element("NextKeyMarker", encode(last)))
        if page.objects and page.objects[-1].key == last:
            parts.append(xml.element("NextVersionIdMarker", page.objects[-1].version))
    parts.append(f"<IsTruncated>{'true' if page.resume is not None else 'false'}</IsTruncated>")
    owner = _owner(call, "Owner")
    for info in page.objects:
        _version(parts, info, encode, owner)
    _prefixes(parts, page.prefixes, encode)
    return Answer(200, [XML_TYPE], xml.document("ListVersionsResult", parts))


async def _page(call: Call, limit: int, *, after: str, resume: str | None) -> Listing:
    if not limit:
        await call.store.bucket(call.bucket)
        return _EMPTY
    return await call.store.list_objects(
        call.bucket,
        prefix=call.query.get("prefix", ""),
        delimiter=call.query.get("delimiter", ""),
        after=after,
        resume=resume,
        limit=limit,
    )


def _open_token(token: str) -> str:
    try:
        return urlsafe_b64decode(token.encode("ascii")).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        raise S3Error("InvalidArgument", "The continuation token provided is incorrect") from None


def _plain(text: str) -> str:
    return text


def _head(call: Call, encode: Encoder, limit: int) -> list[str]:
    query = call.query
    parts = [xml.element("Name", call.bucket), xml.element("Prefix", encode(query.get("prefix", "")))]
    delimiter = query.get("delimiter", "")
    if delimiter:
        parts.append(xml.element("Delimiter", encode(delimiter)))
    if encode is not _plain:
        parts.append("<EncodingType>url</EncodingType>")
    parts.append(f"<MaxKeys>{limit}</MaxKeys>")
    return parts


def _last(page: Listing) -> str:
    """The last entry of a page, object or folded prefix, in the order of UTF-8 bytes, which is that of code points."""
    entries = [page.objects[-1].key] if page.objects else []
    if page.prefixes:
        entries.append(page.prefixes[-1])
    return max(entries)


def _owner(call: Call, name: str) -> str:
    settings = call.settings
    return f"<{name}>{xml.element('ID', settings.owner_id)}{xml.element('DisplayName', settings.owner_name)}</{name}>"


def _contents(parts: list[str], objects: Iterable[ObjectInfo], encode: Encoder, owner: str) -> None:
    escape = xml.escape
    for info in objects:
        checksums = "".join(map(_checksum, info.checksums.items())) if info.checksums else ""
        parts.append(
            f"<Contents><Key>{escape(encode(info.key))}</Key><LastModified>{iso_date(info.modified_ns)}</LastModified>"
            f"<ETag>&quot;{info.etag}&quot;</ETag>{checksums}<Size>{info.size}</Size>{owner}"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )


def _checksum(item: tuple[str, str]) -> str:
    return (
        f"<ChecksumAlgorithm>{item[0].upper()}</ChecksumAlgorithm><ChecksumType>{checksum_type(item[1])}</ChecksumType>"
    )


def _version(parts: list[str], info: ObjectInfo, encode: Encoder, owner: str) -> None:
    name = "DeleteMarker" if info.delete_marker else "Version"
    parts.append(
        f"<{name}><Key>{xml.escape(encode(info.key))}</Key><VersionId>{info.version}</VersionId>"
        f"<IsLatest>{'true' if info.latest else 'false'}</IsLatest>"
        f"<LastModified>{iso_date(info.modified_ns)}</LastModified>"
    )
    if not info.delete_marker:
        parts += (
            f"<ETag>&quot;{info.etag}&quot;</ETag>",
            "".join(map(_checksum, info.checksums.items())),
            f"<Size>{info.size}</Size><StorageClass>STANDARD</StorageClass>",
        )
    parts.append(f"{owner}</{name}>")


def _prefixes(parts: list[str], prefixes: Iterable[str], encode: Encoder) -> None:
    parts += [f"<CommonPrefixes><Prefix>{xml.escape(encode(prefix))}</Prefix></CommonPrefixes>" for prefix in prefixes]
