"""Signature version 4, the verifying side. Pure: bytes of a request and a time in, who signed it out.

Rules. The canonical request is made from the path and query as they came over the wire. Every `x-amz-*` header of the
request must be among the signed ones, and so must `host`. The scope must name today's date (the request's own), our
region, and `s3`. Signatures are compared in constant time. Nothing here is logged, and no error carries a signature
that we computed: AWS shows its canonical request to help debugging, we do not.

https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-authenticating-requests.html
"""

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Protocol
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from holdfast.core.errors import NotFound
from holdfast.core.limits import CLOCK_SKEW_MAX_SECONDS, PRESIGN_MAX_SECONDS
from holdfast.gateways.s3 import sigv2
from holdfast.gateways.s3.errors import S3Error, not_implemented
from holdfast.objects.access import Access

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
STREAMING = frozenset((STREAMING_SIGNED, STREAMING_SIGNED_TRAILER, STREAMING_UNSIGNED_TRAILER))
EMPTY_SHA256 = hashlib.sha256().hexdigest()

# One signing key per access key, day and region: far more than a store has keys in use at a time.
_SIGNING_KEYS_MAX_COUNT = 4096

# RFC 2104.
_SHA256_BLOCK_BYTES = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))

_CANONICAL_PATH = re.compile(rb"[A-Za-z0-9\-._~/]*")
_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256[ \t]+Credential=([^,\s]+)[ \t]*,[ \t]*SignedHeaders=([^,\s]+)[ \t]*,[ \t]*Signature=([^,\s]+)"
)
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_TIMESTAMP = re.compile(r"\d{8}T\d{6}Z", re.ASCII)
_FORM_FIELDS = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")
_PRESIGNED = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", "X-Amz-SignedHeaders")


class Credentials(Protocol):
    """Who may sign. Held in memory by whoever implements it: asked on every request, on the event loop."""

    def secret(self, access_key: str) -> str:
        """The secret of an access key that is known and not disabled. Raises NotFound."""
        ...

    def access(self, access_key: str) -> Access:
        """What that key may do. Raises NotFound."""
        ...


class SignedRequest(Struct, frozen=True):
    """What of a request is signed, as it came over the wire."""

    method: str
    path: bytes
    """The path as sent, percent-encoded, without the query."""
    query: Sequence[tuple[str, str]]
    """Decoded names and values, in the order sent."""
    headers: Mapping[str, str]
    """Lower-case names; values of repeated headers joined by ","; text is the bytes seen as ISO 8859-1."""
    hosts: tuple[str, ...] = ()
    """Other spellings of `host` to accept: a proxy in front may have cut or added the port."""
    host_bucket: str = ""
    """The bucket that the host names; "" in path style."""


class SigningKey:
    """HMAC-SHA-256 under one key, its first blocks hashed in advance: a quarter of the time of `hmac.digest`."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        """`key` is 32 bytes."""
        block = key.ljust(_SHA256_BLOCK_BYTES, b"\0")
        self._inner = hashlib.sha256(block.translate(_INNER_PAD))
        self._outer = hashlib.sha256(block.translate(_OUTER_PAD))

    def sign(self, message: bytes) -> str:
        """In hex."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


@lru_cache(maxsize=_SIGNING_KEYS_MAX_COUNT)
def signing_key(secret: str, date: str, region: str) -> SigningKey:
    """The key of one day and region. `date` is YYYYMMDD."""
    key = b"AWS4" + secret.encode()
    for step in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, step.encode("latin-1"), "sha256")
    return SigningKey(key)


class Identity(Struct, frozen=True):
    """A request whose signature was checked, and what is needed to check the chunks of its body."""

    access_key: str
    payload: str
    """`x-amz-content-sha256`: a hash in hex, or one of the constants above."""
    signature: str
    signing_key: SigningKey
    timestamp: str
    scope: str
    version_2: bool = False


def canonical_path(path: bytes) -> str:
    """The path with every byte but unreserved ones and "/" percent-encoded once."""
    if _CANONICAL_PATH.fullmatch(path):
        return path.decode("ascii")
    return quote_from_bytes(unquote_to_bytes(path), safe="/~")


@lru_cache(maxsize=1024)
def _encode(text: str) -> str:
    return quote_from_bytes(text.encode("utf-8", "surrogateescape"), safe="~")


def canonical_query(query: Sequence[tuple[str, str]]) -> str:
    """Names and values encoded, sorted; the signature itself left out."""
    if not query:
        return ""
    pairs = sorted((_encode(name), _encode(value)) for name, value in query if name != "X-Amz-Signature")
    return "&".join([f"{name}={value}" for name, value in pairs])


def _canonical_value(value: str) -> str:
    return " ".join(value.split()) if "  " in value else value.strip()


def string_to_sign(timestamp: str, scope: str, canonical: bytes) -> bytes:
    """What the signing key is applied to."""
    return f"{ALGORITHM}\n{timestamp}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}".encode("latin-1")


def verify(request: SignedRequest, credentials: Credentials, region: str, now: float) -> Identity:
    """Who signed the request. `now` is seconds since 1970 UTC; `region` "" accepts any. Raises S3Error."""
    authorization = request.headers.get("authorization")
    presigned = False
    for name, _ in request.query:
        presigned = presigned or name in ("X-Amz-Signature", "X-Amz-Algorithm")
    if authorization is None:
        if presigned:
            return _verify_presigned(request, credentials, region, now)
        if any(name in sigv2.QUERY_FIELDS for name, _ in request.query):
            return _verify_version_2(request, credentials, now)
        raise S3Error("AccessDenied", "Access Denied")
    if presigned:
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed")
    return _verify_header(request, authorization, credentials, region, now)


def _verify_version_2(request: SignedRequest, credentials: Credentials, now: float) -> Identity:
    values = dict(request.query)
    if len(values) < len(request.query) or not values.keys() >= sigv2.QUERY_FIELDS:
        raise S3Error(
            "AccessDenied", "Query-string authentication requires AWSAccessKeyId, Signature and Expires, once"
        )
    sigv2.check_expiry(values["Expires"], now)
    given = {name.lower(): value for name, value in values.items()} | dict(request.headers)
    if "x-amz-security-token" in given:
        raise S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.")
    text = sigv2.string_to_sign(request.method, request.path, request.host_bucket, values, request.headers)
    access_key, signature = values["AWSAccessKeyId"], values["Signature"]
    secret = _secret(credentials, access_key)
    if not sigv2.matches(secret, text, signature):
        raise _mismatch(access_key)
    payload = given.get("x-amz-content-sha256", UNSIGNED_PAYLOAD)
    _check_payload(payload)
    if payload in STREAMING:
        raise not_implemented(f"x-amz-content-sha256: {payload}")
    # Chunks are signed with a key of version 4; there are none.
    return Identity(access_key, payload, signature, signing_key(secret, "", ""), "", "", version_2=True)


def verify_form(fields: Mapping[str, str], credentials: Credentials, region: str) -> str:
    """The access key that signed a form's policy. `fields` by name in lower case. Raises S3Error.

    There is no time to compare: the policy says itself when it expires.
    """
    if sigv2.FORM_FIELDS & fields.keys():
        return _verify_form_version_2(fields, credentials)
    missing = [name for name in _FORM_FIELDS if name not in fields]
    if missing:
        raise S3Error("InvalidArgument", f"Bucket POST must contain a field named '{missing[0]}'.")
    if fields["x-amz-algorithm"] != ALGORITHM:
        raise S3Error("InvalidArgument", f'x-amz-algorithm only supports "{ALGORITHM}"')
    if "x-amz-security-token" in fields:
        raise S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.")
    timestamp, signature = fields["x-amz-date"], fields["x-amz-signature"]
    if not _TIMESTAMP.fullmatch(timestamp):
        raise S3Error("InvalidArgument", "x-amz-date must be in the ISO8601 Long Format yyyyMMdd'T'HHmmss'Z'")
    access_key, _, key_region = _split_credential(fields["x-amz-credential"], timestamp, region, "InvalidArgument")
    key = signing_key(_secret(credentials, access_key), timestamp[:8], key_region)
    if not hmac.compare_digest(key.sign(fields["policy"].encode()), signature if signature.isascii() else ""):
        raise _mismatch(access_key)
    return access_key


def _verify_form_version_2(fields: Mapping[str, str], credentials: Credentials) -> str:
    if any(name in fields for name in _FORM_FIELDS):
        raise S3Error("InvalidArgument", "Only one auth mechanism allowed")
    if not fields.keys() >= sigv2.FORM_FIELDS:
        raise S3Error("InvalidArgument", "Bucket POST must contain both AWSAccessKeyId and signature.")
    access_key = fields["awsaccesskeyid"]
    if not sigv2.matches(_secret(credentials, access_key), fields["policy"].encode(), fields["signature"]):
        raise _mismatch(access_key)
    return access_key


def _secret(credentials: Credentials, access_key: str) -> str:
    try:
        return credentials.secret(access_key)
    except NotFound:
        raise _unknown() from None


def access_of(credentials: Credentials, access_key: str) -> Access:
    """What the signer may do. Raises S3Error: since it signed, the key may have gone."""
    try:
        return credentials.access(access_key)
    except NotFound:
        raise _unknown() from None


def _unknown() -> S3Error:
    return S3Error("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.")


def _mismatch(access_key: str) -> S3Error:
    return S3Error(
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing "
        "method.",
        details={"AWSAccessKeyId": access_key},
    )


def _verify_header(
    request: SignedRequest, authorization: str, credentials: Credentials, region: str, now: float
) -> Identity:
    match = _AUTHORIZATION.fullmatch(authorization.strip())
    if match is None:
        if not authorization.startswith("AWS4-HMAC-SHA256"):
            raise S3Error("InvalidRequest", "The authorization mechanism is not supported. Use AWS4-HMAC-SHA256.")
        raise S3Error("AuthorizationHeaderMalformed", "The authorization header that you provided is not valid.")
    credential, names, signature = match.groups()
    timestamp = _header_timestamp(request.headers)
    _check_skew(timestamp, now)
    payload = request.headers.get("x-amz-content-sha256")
    if payload is None:
        raise S3Error("InvalidRequest", "Missing required header for this request: x-amz-content-sha256")
    _check_payload(payload)
    return _check(
        request,
        credentials,
        region,
        credential=credential,
        timestamp=timestamp,
        names=names,
        signature=signature,
        payload=payload,
        malformed="AuthorizationHeaderMalformed",
    )


def _verify_presigned(request: SignedRequest, credentials: Credentials, region: str, now: float) -> Identity:
    values: dict[str, str] = {}
    for name, value in request.query:
        if name.startswith("X-Amz-"):
            if name in values:
                raise _bad_query(f"{name} is given more than once")
            values[name] = value
    signature = values.get("X-Amz-Signature")
    if signature is None or any(name not in values for name in _PRESIGNED):
        raise _bad_query(f"Query-string authentication requires {', '.join(_PRESIGNED)} and X-Amz-Signature")
    if values["X-Amz-Algorithm"] != ALGORITHM:
        raise _bad_query(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    timestamp = values["X-Amz-Date"]
    if not _TIMESTAMP.fullmatch(timestamp):
        raise _bad_query("X-Amz-Date must be in the ISO8601 Long Format yyyyMMdd'T'HHmmss'Z'")
    _check_expiry(timestamp, values["X-Amz-Expires"], now)
    if "X-Amz-Security-Token" in values:
        raise S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.")
    payload = request.headers.get("x-amz-content-sha256") or values.get("X-Amz-Content-Sha256") or UNSIGNED_PAYLOAD
    _check_payload(payload)
    return _check(
        request,
        credentials,
        region,
        credential=values["X-Amz-Credential"],
        timestamp=timestamp,
        names=values["X-Amz-SignedHeaders"],
        signature=signature,
        payload=payload,
        malformed="AuthorizationQueryParametersError",
    )


def _check(
    request: SignedRequest,
    credentials: Credentials,
    region: str,
    *,
    credential: str,
    timestamp: str,
    names: str,
    signature: str,
    payload: str,
    malformed: str,
) -> Identity:
    """The part that header and query share: scope, signed headers, signature."""
    access_key, scope, key_region = _split_credential(credential, timestamp, region, malformed)
    headers = request.headers
    if "x-amz-security-token" in headers:
        raise S3Error("InvalidToken", "The provided token is malformed or otherwise invalid.")
    signed = _split_names(names)
    if signed is None:
        raise S3Error(malformed, "SignedHeaders must hold host, be sorted and without repetition.")
    _check_signed(signed, headers)
    key = signing_key(_secret(credentials, access_key), timestamp[:8], key_region)
    path = canonical_path(request.path)
    query = canonical_query(request.query)
    for host in (headers["host"], *request.hosts):
        lines = [f"{name}:{_canonical_value(host if name == 'host' else headers[name])}\n" for name in signed]
        canonical = f"{request.method}\n{path}\n{query}\n{''.join(lines)}\n{names}\n{payload}".encode("latin-1")
        expected = key.sign(string_to_sign(timestamp, scope, canonical))
        if hmac.compare_digest(expected, signature if signature.isascii() else ""):
            return Identity(access_key, payload, signature, key, timestamp, scope)
    raise _mismatch(access_key)


@lru_cache(maxsize=1024)
def _split_credential(credential: str, timestamp: str, region: str, malformed: str) -> tuple[str, str, str]:
    """Access key, scope as signed, and region; the scope checked."""
    access_key, _, scope = credential.partition("/")
    fields = scope.split("/")
    if len(fields) != 4 or not access_key:
        raise S3Error(malformed, "The credential must be <access key>/<date>/<region>/s3/aws4_request.")
    date, key_region, service, terminator = fields
    if date != timestamp[:8]:
        raise S3Error(malformed, "The date of the credential does not match the date of the request.")
    if service != "s3" or terminator != "aws4_request":
        raise S3Error(malformed, 'The credential must name the service "s3" and end in "aws4_request".')
    if region and key_region != region:
        raise S3Error(
            malformed, f"The region {key_region!r} is wrong; expecting {region!r}", details={"Region": region}
        )
    if not key_region.isascii():
        raise S3Error(malformed, "The region of the credential is not ASCII.")
    return access_key, scope, key_region


@lru_cache(maxsize=1024)
def _split_names(names: str) -> tuple[str, ...] | None:
    """The names in SignedHeaders; None when they are not as they must be. Clients send few different ones."""
    signed = tuple(names.split(";"))
    if "host" not in signed or signed != tuple(sorted(set(signed))):
        return None
    return signed


def _check_signed(signed: Sequence[str], headers: Mapping[str, str]) -> None:
    """Every signed header is there, and nothing that must be signed is missing."""
    missing = [name for name in signed if name not in headers]
    if missing:
        raise S3Error("AccessDenied", f"Signed headers are not in the request: {', '.join(missing)}")
    unsigned = [name for name in headers if name.startswith("x-amz-") and name not in signed]
    if unsigned:
        raise S3Error(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            details={"HeadersNotSigned": ", ".join(unsigned)},
        )


def _check_payload(payload: str) -> None:
    if _SIGNATURE.fullmatch(payload) or payload == UNSIGNED_PAYLOAD or payload in STREAMING:
        return
    if payload.startswith("STREAMING-"):
        raise not_implemented(f"x-amz-content-sha256: {payload}")
    raise S3Error(
        "InvalidArgument",
        "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, one of the STREAMING-... values or a valid sha256 value.",
        details={"ArgumentName": "x-amz-content-sha256"},
    )


def _header_timestamp(headers: Mapping[str, str]) -> str:
    timestamp = headers.get("x-amz-date") or headers.get("date")
    if timestamp is None:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")
    timestamp = timestamp.strip()
    if _TIMESTAMP.fullmatch(timestamp):
        return timestamp
    try:
        moment = parsedate_to_datetime(timestamp)
        return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    except (ValueError, TypeError, OverflowError):
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None


@lru_cache(maxsize=64)
def _seconds(timestamp: str) -> float:
    try:
        return datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise S3Error("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header") from None


def _check_skew(timestamp: str, now: float) -> None:
    if abs(now - _seconds(timestamp)) > CLOCK_SKEW_MAX_SECONDS:
        raise S3Error(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            details={"RequestTime": timestamp, "MaxAllowedSkewMilliseconds": str(CLOCK_SKEW_MAX_SECONDS * 1000)},
        )


def _check_expiry(timestamp: str, expires: str, now: float) -> None:
    if expires.startswith("-") and expires[1:].isdecimal():
        raise S3Error("AccessDenied", "Request has expired", details={"X-Amz-Expires": expires})
    if not expires.isascii() or not expires.isdigit() or len(expires) > 9:
        raise _bad_query("X-Amz-Expires should be a number")
    seconds = int(expires)
    if not 1 <= seconds <= PRESIGN_MAX_SECONDS:
        raise _bad_query(f"X-Amz-Expires must be from 1 to {PRESIGN_MAX_SECONDS}")
    signed = _seconds(timestamp)
    if now < signed - CLOCK_SKEW_MAX_SECONDS:
        raise S3Error("AccessDenied", "Request is not yet valid")
    if now > signed + seconds:
        raise S3Error("AccessDenied", "Request has expired", details={"X-Amz-Expires": expires})


def _bad_query(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)
