"""Signature version 2, where clients still make it of themselves: forms, and URLs that are signed in the query.

boto3, aws-cli and s3fs presign with it when the region is us-east-1 and nothing else was configured, and s3cmd always
does. Requests with an Authorization header of version 2 are refused: no client of today sends one by default. Pure, as
`sigv4`.

Rules. A signature of version 2 covers the method, the path, `x-amz-*` and a few query parameters, and no others: a URL
with any parameter that it does not cover is refused, so that nobody who was given a URL can make another of it. It
expires within the time that a URL of version 4 may. Region and host are not part of it.

https://docs.aws.amazon.com/AmazonS3/latest/API/RESTAuthentication.html
"""

import base64
import hmac
import re
from collections.abc import Mapping

from holdfast.core.limits import CLOCK_SKEW_MAX_SECONDS, PRESIGN_MAX_SECONDS
from holdfast.gateways.s3.errors import S3Error

FORM_FIELDS = frozenset(("awsaccesskeyid", "signature"))
QUERY_FIELDS = frozenset(("AWSAccessKeyId", "Signature", "Expires"))

# Query parameters that are part of the resource that is signed.
_SIGNED_QUERY = frozenset(
    (
        "acl", "cors", "delete", "lifecycle", "location", "logging", "notification", "partNumber", "policy",
        "requestPayment", "response-cache-control", "response-content-disposition", "response-content-encoding",
        "response-content-language", "response-content-type", "response-expires", "restore", "tagging", "torrent",
        "uploadId", "uploads", "versionId", "versioning", "versions", "website",
    )
)  # fmt: skip

# Headers that a URL may carry in its query; they are signed in their place.
HEADERS = ("content-md5", "content-type")

_EXPIRES = re.compile(r"\d{1,11}", re.ASCII)


def sign(secret: str, text: bytes) -> str:
    """HMAC-SHA-1, in base64."""
    return base64.b64encode(hmac.digest(secret.encode(), text, "sha1")).decode("ascii")


def matches(secret: str, text: bytes, signature: str) -> bool:
    """In constant time."""
    return signature.isascii() and hmac.compare_digest(sign(secret, text), signature)


def string_to_sign(
    method: str, path: bytes, bucket: str, values: Mapping[str, str], headers: Mapping[str, str]
) -> bytes:
    """What a URL's signature is of. Raises S3Error for a parameter that the signature would not cover.

    `bucket` is the one that the host names, "" in path style; `values` are the query's, decoded.
    """
    signed = {
        name: value.strip().encode("latin-1")
        for name, value in headers.items()
        if name in HEADERS or name.startswith("x-amz-")
    }
    resource: list[str] = []
    for name, value in sorted(values.items()):
        if name in _SIGNED_QUERY:
            resource.append(f"{name}={value}" if value else name)
        elif name.lower() in HEADERS or name.lower().startswith("x-amz-"):
            if name.lower() in signed:
                raise _refused(f"{name} is given more than once")
            signed[name.lower()] = value.strip().encode("utf-8", "surrogateescape")
        elif name not in QUERY_FIELDS:
            raise _refused(f"the signature does not cover the parameter {name}")
    lines = [method.encode("latin-1"), *(signed.get(name, b"") for name in HEADERS), values["Expires"].encode()]
    lines += [b"%b:%b" % (name.encode("latin-1"), signed[name]) for name in sorted(signed) if name not in HEADERS]
    host = f"/{bucket}" if bucket else ""
    query = f"?{'&'.join(resource)}" if resource else ""
    lines.append(host.encode() + path + query.encode("utf-8", "surrogateescape"))
    return b"\n".join(lines)


def check_expiry(expires: str, now: float) -> None:
    """`expires` and `now` are seconds since 1970 UTC. Raises S3Error."""
    if not _EXPIRES.fullmatch(expires):
        raise _refused("Expires should be a number of seconds since 1970")
    if now > int(expires):
        raise S3Error("AccessDenied", "Request has expired", details={"Expires": expires})
    if int(expires) > now + PRESIGN_MAX_SECONDS + CLOCK_SKEW_MAX_SECONDS:
        raise _refused(f"a URL may be good for at most {PRESIGN_MAX_SECONDS} seconds")


def _refused(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)
