"""An object's headers: what a write keeps of them, and what a read answers.

Header text is kept as it came, one character for one byte, so that what was put is what is answered, whatever its
encoding. User metadata beyond ASCII is answered as S3 does, as an encoded word of RFC 2047: bytes beyond ASCII are not
what every client and proxy lets through.
"""

import base64
from collections.abc import Mapping

from holdfast.core.limits import USER_METADATA_MAX_BYTES
from holdfast.gateways.s3.call import Call, Header, http_date, quoted, unquoted
from holdfast.gateways.s3.checksums import checksum_type
from holdfast.gateways.s3.errors import S3Error
from holdfast.objects.access import READ
from holdfast.objects.model import NULL_VERSION, Conditions, ObjectInfo

USER_PREFIX = "x-amz-meta-"

SYSTEM_HEADERS = ("cache-control", "content-disposition", "content-encoding", "content-language", "content-type")
"""Kept with an object as they came."""

_DEFAULT_TYPE = "binary/octet-stream"

# Where an answer's header can be asked for in the query: `response-content-type` and so on.
OVERRIDES: Mapping[str, str] = {f"response-{name}": name for name in (*SYSTEM_HEADERS, "expires")}


def system_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The system metadata of a write. The transfer's own coding is not part of the object."""
    kept = {name: headers[name] for name in SYSTEM_HEADERS if name in headers}
    if "expires" in headers:
        kept["expires"] = headers["expires"]
    kept.setdefault("content-type", _DEFAULT_TYPE)
    encoding = kept.get("content-encoding")
    if encoding is not None and "aws-chunked" in encoding:
        codings = [coding.strip() for coding in encoding.split(",")]
        encoding = ",".join(coding for coding in codings if coding != "aws-chunked")
        del kept["content-encoding"]
        if encoding:
            kept["content-encoding"] = encoding
    return kept


def user_metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """`x-amz-meta-*` without its prefix. Raises MetadataTooLarge."""
    found = {name[len(USER_PREFIX) :]: value.strip() for name, value in headers.items() if name.startswith(USER_PREFIX)}
    if found:
        size = sum(len(name) + len(value) for name, value in found.items())
        if size > USER_METADATA_MAX_BYTES:
            raise S3Error(
                "MetadataTooLarge",
                "Your metadata headers exceed the maximum allowed metadata size",
                details={"Size": str(size), "MaxSizeAllowed": str(USER_METADATA_MAX_BYTES)},
            )
    return found


def write_conditions(call: Call) -> Conditions:
    """If-Match and If-None-Match of a write. S3 takes only * in If-None-Match; here it may be an ETag as well.

    The outcome tells whether the caller knows the ETag, so as in S3 that takes the right to read.
    """
    none_match = call.headers.get("if-none-match")
    match = call.headers.get("if-match")
    if none_match is not None and match is not None:
        raise S3Error("InvalidRequest", "If-Match and If-None-Match exclude each other.")
    if match is not None or (none_match is not None and none_match.strip() != "*"):
        call.access.require(call.bucket, READ)
    return Conditions(
        if_none_match=none_match is not None and none_match.strip() == "*",
        if_match=None if match is None else unquoted(match),
        unless_match=None if none_match is None or none_match.strip() == "*" else unquoted(none_match),
    )


def answer_headers(call: Call, info: ObjectInfo, *, checksums: bool) -> list[Header]:
    """What GET and HEAD say of an object, beside the length."""
    headers: list[Header] = [
        (b"etag", quoted(info.etag).encode("latin-1")),
        (b"last-modified", http_date(info.modified_ns // 1_000_000_000).encode("ascii")),
        (b"accept-ranges", b"bytes"),
    ]
    system = dict(info.headers)
    for parameter, value in call.query.items():
        if parameter in OVERRIDES:
            system[OVERRIDES[parameter]] = value
    headers += [(name.encode("latin-1"), _safe(value)) for name, value in system.items()]
    for name, value in info.user_metadata.items():
        headers.append((f"{USER_PREFIX}{name}".encode("latin-1"), _mail_safe(value)))
    headers += version_header(call, info.version)
    if info.parts:
        headers.append((b"x-amz-mp-parts-count", str(len(info.parts)).encode("ascii")))
    if info.tags:
        headers.append((b"x-amz-tagging-count", str(len(info.tags)).encode("ascii")))
    if checksums:
        headers += checksum_headers(info.checksums)
    return headers


def version_header(call: Call, version: str | None) -> list[Header]:
    """`x-amz-version-id`, for an object of a bucket that keeps versions or when it was asked for."""
    if version is None or (version == NULL_VERSION and "versionId" not in call.query):
        return []
    return [(b"x-amz-version-id", version.encode("ascii"))]


def checksum_headers(checksums: Mapping[str, str]) -> list[Header]:
    """`x-amz-checksum-*` and their type."""
    headers: list[Header] = []
    for algorithm, value in checksums.items():
        headers.append((f"x-amz-checksum-{algorithm}".encode("ascii"), value.encode("ascii")))
        headers.append((b"x-amz-checksum-type", checksum_type(value).encode("ascii")))
    return headers


def _safe(value: str) -> bytes:
    """A header's value as bytes. A line break in it would end the header: what is left of it is a space."""
    encoded = value.encode("latin-1") if value.isascii() else _encode(value)
    if b"\r" in encoded or b"\n" in encoded or b"\0" in encoded:
        encoded = encoded.translate(_NO_BREAKS)
    return encoded


def _mail_safe(value: str) -> bytes:
    """User metadata as it is answered. Text is UTF-8, or else ISO 8859-1."""
    if value.isascii():
        return _safe(value)
    raw = _encode(value)
    try:
        raw.decode()
    except UnicodeDecodeError:
        raw = raw.decode("latin-1").encode()
    return b"=?UTF-8?B?%b?=" % base64.b64encode(raw)


_NO_BREAKS = bytes.maketrans(b"\r\n\0", b"   ")


def _encode(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return value.encode("utf-8", "surrogateescape")
