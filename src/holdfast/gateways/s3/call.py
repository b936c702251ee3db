"""A call: one request with what it names taken apart, and the answer to it. Values, and reading their parameters."""

import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from urllib.parse import quote, unquote, unquote_to_bytes

from msgspec import Struct

from holdfast.core.errors import InvalidName
from holdfast.core.ids import Buffer
from holdfast.core.limits import KEY_MAX_BYTES
from holdfast.gateways.s3.body import Body
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.settings import Settings
from holdfast.objects.access import Access
from holdfast.objects.names import check_bucket_name
from holdfast.objects.store import Store

Header = tuple[bytes, bytes]

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.\-/*]*")

XML_TYPE: Header = (b"content-type", b"application/xml")

RESERVED_BUCKET = "health"
"""The path under which the gateway answers for itself; no bucket can have that name."""


@dataclass(slots=True)
class Answer:
    """Status, headers, and a body: whole, or with a stream that follows it."""

    status: int
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    stream: AsyncIterator[Buffer] | None = None
    """Closed, if it can be (`aclose`), once it has been sent or given up."""
    has_length: bool = False
    """Content-Length is among the headers; otherwise it is that of `body`."""


class Call(Struct, frozen=True):
    """A request that was routed to a verb: signed, but for a form, whose signature is in its body."""

    store: Store
    settings: Settings
    method: str
    bucket: str
    key: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    now_ns: int
    access: Access
    """What the signer may do: of a form, nothing until its signature was checked. The verb itself is allowed; what else
    it comes upon (a copy's source) it asks for."""


def split_query(raw: bytes) -> list[tuple[str, str]]:
    """Decoded names and values in the order sent. A name without "=" has the value ""."""
    if not raw:
        return []
    pairs: list[tuple[str, str]] = []
    for field_ in raw.decode("latin-1").split("&"):
        if field_:
            name, _, value = field_.partition("=")
            pairs.append((_decode(name), _decode(value)))
    return pairs


def _decode(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    return unquote(text.replace("+", " "), "utf-8", "surrogateescape")


def split_path(path: bytes, bucket: str) -> tuple[str, str]:
    """Bucket and key of a path as sent; `bucket` is what the host named, or "". Raises S3Error."""
    rest = path[1:]
    if not bucket:
        name, _, rest = rest.partition(b"/")
        bucket = _text(name)
    return bucket, _text(rest)


def _text(raw: bytes) -> str:
    if b"%" in raw:
        raw = unquote_to_bytes(raw)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise S3Error("InvalidURI", "Couldn't parse the specified URI.") from None


def check_key(key: str) -> None:
    """Raises KeyTooLongError."""
    size = len(key.encode()) if len(key) * 4 > KEY_MAX_BYTES else 0
    if size > KEY_MAX_BYTES:
        raise S3Error(
            "KeyTooLongError",
            "Your key is too long",
            details={"Size": str(size), "MaxSizeAllowed": str(KEY_MAX_BYTES)},
        )


@lru_cache(maxsize=1024)
def is_bucket_name(name: str) -> bool:
    """Whether a bucket may have that name, by S3's rules."""
    try:
        check_bucket_name(name)
    except InvalidName:
        return False
    return name != RESERVED_BUCKET


def integer(call: Call, name: str, default: int, maximum: int, minimum: int = 0) -> int:
    """A number from the query, cut to `maximum`. InvalidArgument for anything else."""
    text = call.query.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or not minimum <= int(text) < 2**31:
        raise S3Error(
            "InvalidArgument",
            f"Argument {name} must be an integer between {minimum} and {2**31 - 1}",
            details={"ArgumentName": name, "ArgumentValue": text},
        )
    return min(int(text), maximum)


def version(call: Call) -> str | None:
    """The version that the query names; None for the newest."""
    named = call.query.get("versionId")
    if named == "":
        raise S3Error("InvalidArgument", "Version id cannot be the empty string", details={"ArgumentName": "versionId"})
    return named


def url_encoder(call: Call) -> Callable[[str], str] | None:
    """What keys are encoded with in a listing: `encoding-type`. None when they are not."""
    kind = call.query.get("encoding-type")
    if not kind:
        return None
    if kind != "url":
        raise S3Error("InvalidArgument", "Invalid Encoding Method specified in Request")
    return encode_key


def encode_key(text: str) -> str:
    """As `encoding-type=url` writes a key: "/" is left as it is. A space is %20, which every client decodes."""
    if _PLAIN_KEY.fullmatch(text):
        return text
    return quote(text, safe="/*")


def quoted(etag: str) -> str:
    return f'"{etag}"'


def unquoted(etag: str) -> str:
    """An ETag as a client writes it, without its quotes."""
    return etag.strip().removeprefix('"').removesuffix('"')


@lru_cache(maxsize=4096)
def http_date(seconds: int) -> str:
    """Thu, 01 Jan 1970 00:00:00 GMT."""
    return format_datetime(datetime.fromtimestamp(seconds, UTC), usegmt=True)


def iso_date(nanoseconds: int) -> str:
    """1970-01-01T00:00:00.000Z, as documents carry it."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_iso_seconds(seconds)}.{rest // 1_000_000:03d}Z"


@lru_cache(maxsize=4096)
def _iso_seconds(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
