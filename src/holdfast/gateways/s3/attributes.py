"""GetObjectAttributes."""

from holdfast.gateways.s3 import metadata, xml
from holdfast.gateways.s3.call import XML_TYPE, Answer, Call, Header, http_date, version
from holdfast.gateways.s3.checksums import checksum_type
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.get_object import find_object
from holdfast.objects.model import ObjectInfo

_KNOWN = frozenset(("ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"))


async def get_object_attributes(call: Call) -> Answer:
    """GET /bucket/key?attributes. Of the parts it tells how many there are: their checksums are not kept."""
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
    return Answer(200, headers, xml.document("GetObjectAttributesResponse", _attributes(info, asked)))


def _attributes(info: ObjectInfo, asked: set[str]) -> list[str]:
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
        parts.append(f"<ObjectParts><PartsCount>{len(info.parts)}</PartsCount></ObjectParts>")
    if "StorageClass" in asked:
        parts.append("<StorageClass>STANDARD</StorageClass>")
    if "ObjectSize" in asked:
        parts.append(f"<ObjectSize>{info.size}</ObjectSize>")
    return parts
