"""GetObjectAttributes."""

from holdfast.core.limits import LIST_PAGE_MAX_COUNT
from holdfast.gateways.s3 import metadata, xml
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, Header, http_date, version
from holdfast.gateways.s3.checksums import checksum_type
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.get_object import find_object
from holdfast.objects.model import ObjectInfo

_KNOWN = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))


async def get_object_attributes(call: Call) -> Answer:
    """GET /bucket/key?attributes."""
    asked = {name.strip() for name in call.headers.get("x-amz-object-attributes", "").split(",")}
    if not asked <= _KNOWN or not asked:
        raise S3Error(
            "InvalidArgument",
            "Invalid attribute name specified.",
            details={"ArgumentName": "x-amz-object-attributes"},
        )
    info = await find_object(call, version(call))
    headers: list[Header] = [
        XML_TYPE,
        (b"last-modified", http_date(info.modified_ns // 1_000_000_000).encode("ascii")),
        *metadata.version_header(call, info.version),
    ]
    return Answer(200, headers, xml.document("GetObjectAttributesResponse", _attributes(call, info, asked)))


def _attributes(call: Call, info: ObjectInfo, asked: set[str]) -> list[str]:
    parts: list[str] = []
    if "ETag" in asked:
        parts.append(xml.element("ETag", info.etag))
    if "Checksum" in asked and info.checksums:
        parts.append("<Checksum>")
        for algorithm, value in info.checksums.items():
            parts.append(xml.element(f"Checksum{algorithm.upper()}", value))
            parts.append(xml.element("ChecksumType", checksum_type(value)))
        parts.append("</Checksum>")
    if "ObjectParts" in asked and info.parts:
        parts += _object_parts(call, info)
    if "StorageClass" in asked:
        parts.append("<StorageClass>STANDARD</StorageClass>")
    if "ObjectSize" in asked:
        parts.append(f"<ObjectSize>{info.size}</ObjectSize>")
    return parts


def _object_parts(call: Call, info: ObjectInfo) -> list[str]:
    """A page of the parts, numbered as they lie in the object."""
    limit = _number(call, "x-amz-max-parts", LIST_PAGE_MAX_COUNT)
    after = _number(call, "x-amz-part-number-marker", 0)
    limit = min(limit, LIST_PAGE_MAX_COUNT)
    last = min(after + limit, len(info.parts))
    parts = [
        f"<ObjectParts><PartsCount>{len(info.parts)}</PartsCount><PartNumberMarker>{after}</PartNumberMarker>",
        f"<NextPartNumberMarker>{max(last, after)}</NextPartNumberMarker><MaxParts>{limit}</MaxParts>",
        f"<IsTruncated>{'true' if last < len(info.parts) else 'false'}</IsTruncated>",
    ]
    for position in range(after, last):
        parts.append(f"<Part><PartNumber>{position + 1}</PartNumber><Size>{info.parts[position]}</Size>")
        parts += [
            xml.element(f"Checksum{algorithm.upper()}", values[position])
            for algorithm, values in info.part_checksums.items()
        ]
        parts.append("</Part>")
    parts.append("</ObjectParts>")
    return parts


def _number(call: Call, name: str, default: int) -> int:
    text = call.headers.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 9:
        raise S3Error("InvalidArgument", f"{name} must be a number.", details={"ArgumentName": name})
    return int(text)
