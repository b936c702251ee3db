"""What botocore says, as our errors: each names the cause and the next step.

The border of the room: `connection.Connection.call` is the one place where botocore's exceptions come in, and they go
no further. A HEAD that was refused carries no reason; the connection asks again with a call that does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from holdfast.core.errors import (
    AccessDenied,
    AlreadyExists,
    Corrupt,
    Full,
    HoldfastError,
    InvalidName,
    InvalidRequest,
    NodeDown,
    NotFound,
    PreconditionFailed,
    QuotaExceeded,
    RemoteProtocolError,
    Timeout,
    Unavailable,
)
from holdfast.core.limits import CLOCK_SKEW_MAX_SECONDS

MAKE_RUN_ENDPOINT = "http://127.0.0.1:9000"

NO_CREDENTIALS = (
    "no access key was found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment, or name a profile of "
    "~/.aws/credentials with --profile (`aws configure` makes one)"
)


class NoSuchBucket(NotFound):
    """The bucket is not there, whatever the key."""


class NoSuchUpload(NotFound):
    """The upload was completed or aborted."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked, for the words of an error."""

    operation: str
    endpoint: str
    profile: str
    bucket: str
    key: str
    now: datetime

    @property
    def what(self) -> str:
        return f"s3://{self.bucket}/{self.key}" if self.key else f"s3://{self.bucket}" if self.bucket else self.endpoint


def translated(error: Exception, asked: Asked) -> HoldfastError:
    """A botocore error in our words. Raises the error itself when it is none of botocore's."""
    if isinstance(error, boto.ClientError):
        return _answered(error, asked)
    for kinds, said in _LOCAL:
        if isinstance(error, kinds):
            return said(error, asked)
    if isinstance(error, boto.BotoCoreError | ValueError):
        return InvalidRequest(f"{asked.what}: {error}")
    raise error


def code_of(error: Exception) -> str:
    """S3's code in an answer: "NoSuchKey", or of a HEAD the status: "404"."""
    response: Mapping[str, Any] = getattr(error, "response", {})
    return str(response.get("Error", {}).get("Code", ""))


def status_of(error: Exception) -> int:
    response: Mapping[str, Any] = getattr(error, "response", {})
    return int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _date(error: boto.ClientError) -> datetime | None:
    text = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        stamp = parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
    return stamp.replace(tzinfo=UTC) if stamp is not None and stamp.tzinfo is None else stamp


def _answered(error: boto.ClientError, asked: Asked) -> HoldfastError:
    code, status = code_of(error), status_of(error)
    message = str(error.response.get("Error", {}).get("Message", "")).rstrip(".")
    if code in _CODES:
        return _CODES[code](asked, message, error)
    if status in _STATUSES:
        return _STATUSES[status](asked, message, error)
    kind = Unavailable if status >= 500 else InvalidRequest
    return kind(f"{asked.what}: the server answered {status} {code}: {message or 'without a reason'}")


_Maker = Callable[[Asked, str, boto.ClientError], HoldfastError]


def _skewed(asked: Asked, _message: str, error: boto.ClientError) -> HoldfastError:
    theirs = _date(error)
    if theirs is None:
        return AccessDenied("this machine's clock and the server's differ by more than 15 minutes: set it right (NTP)")
    ahead = (asked.now - theirs).total_seconds()
    way = "ahead of" if ahead > 0 else "behind"
    return AccessDenied(
        f"this machine's clock is {abs(ahead) / 60:.0f} minutes {way} the server's ({theirs:%Y-%m-%d %H:%M} UTC), and "
        "signatures hold for 15: set the wrong one right (NTP), then try again"
    )


def _denied(asked: Asked, message: str, error: boto.ClientError) -> HoldfastError:
    theirs = _date(error)
    if theirs is not None and abs((asked.now - theirs).total_seconds()) > CLOCK_SKEW_MAX_SECONDS:
        return _skewed(asked, message, error)
    said = f" ({message})" if message and message not in ("Forbidden", "Access Denied") else ""
    return AccessDenied(
        f"{asked.what}: access denied{said}: the key{_of_profile(asked)} may not do {asked.operation} there; ask for a "
        "grant, or use another --profile"
    )


def _of_profile(asked: Asked) -> str:
    return f" of profile {asked.profile}" if asked.profile else ""


def _wrong_key(asked: Asked, _message: str, _error: boto.ClientError) -> HoldfastError:
    return AccessDenied(
        f"{asked.endpoint} does not know the access key{_of_profile(asked)}: check AWS_ACCESS_KEY_ID or the profile, "
        "and that the endpoint is the one that it was made for"
    )


def _wrong_secret(asked: Asked, message: str, error: boto.ClientError) -> HoldfastError:
    theirs = _date(error)
    if theirs is not None and abs((asked.now - theirs).total_seconds()) > CLOCK_SKEW_MAX_SECONDS:
        return _skewed(asked, message, error)
    return AccessDenied(
        f"{asked.endpoint} knows the access key{_of_profile(asked)}, but not this secret key for it: check "
        "AWS_SECRET_ACCESS_KEY or the profile; behind a proxy, that it passes Host on as it came"
    )


def _no_bucket(asked: Asked, _message: str, _error: boto.ClientError) -> HoldfastError:
    return NoSuchBucket(f"there is no bucket {asked.bucket!r} at {asked.endpoint}")


def _no_key(asked: Asked, _message: str, _error: boto.ClientError) -> HoldfastError:
    if not asked.key:
        return _no_bucket(asked, _message, _error)
    return NotFound(f"{asked.what}: there is no such object")


def _region(asked: Asked, message: str, _error: boto.ClientError) -> HoldfastError:
    return InvalidRequest(f"{asked.what}: the bucket is in another region ({message}): give that with --region")


def _busy(asked: Asked, message: str, _error: boto.ClientError) -> HoldfastError:
    return Unavailable(
        f"{asked.what}: the server cannot answer now ({message or 'no reason given'}), and was asked several times: "
        "try again later; of a Holdfast store `holdfast status DIR` says what is missing"
    )


def _full(asked: Asked, message: str, _error: boto.ClientError) -> HoldfastError:
    return Full(f"{asked.what}: the store is full ({message}): delete something, or add a drive")


def _absent(asked: Asked, message: str, _error: boto.ClientError) -> HoldfastError:
    return InvalidRequest(f"{asked.what}: this server does not have {asked.operation}: {message or 'not implemented'}")


def _with(kind: type[HoldfastError], words: str) -> _Maker:
    return lambda asked, message, _error: kind(f"{asked.what}: " + words.format(message=message))


_CODES: dict[str, _Maker] = {
    "NoSuchBucket": _no_bucket,
    "NoSuchKey": _no_key,
    "NoSuchVersion": _with(NotFound, "there is no such version: `holdfast ls --versions` lists those there are"),
    "NoSuchUpload": _with(NoSuchUpload, "the upload is not there any more: give the same command again"),
    "AccessDenied": _denied,
    "InvalidAccessKeyId": _wrong_key,
    "SignatureDoesNotMatch": _wrong_secret,
    "RequestTimeTooSkewed": _skewed,
    "ExpiredToken": _with(AccessDenied, "the session's credentials have expired: log in again"),
    "InvalidToken": _with(AccessDenied, "the session token is not accepted: unset AWS_SESSION_TOKEN, or log in again"),
    "AuthorizationHeaderMalformed": _with(InvalidRequest, "{message}: give the right region with --region"),
    "PermanentRedirect": _region,
    "IllegalLocationConstraintException": _region,
    "InvalidLocationConstraint": _with(InvalidRequest, "{message}: give the store's region with --region"),
    "BucketAlreadyExists": _with(AlreadyExists, "somebody else has a bucket of that name: choose another"),
    "BucketAlreadyOwnedByYou": _with(AlreadyExists, "the bucket is there already"),
    "BucketNotEmpty": _with(
        AlreadyExists, "the bucket is not empty: `holdfast bucket delete --force` empties it first"
    ),
    "InvalidBucketName": _with(InvalidName, "no bucket's name: 3 to 63 lower-case letters, digits, hyphens and dots"),
    "KeyTooLongError": _with(InvalidName, "the key is longer than 1,024 bytes"),
    "PreconditionFailed": _with(PreconditionFailed, "it was changed meanwhile: give the same command again"),
    "412": _with(PreconditionFailed, "it was changed meanwhile: give the same command again"),
    "QuotaExceeded": _with(QuotaExceeded, "the quota is used up: {message}"),
    "InsufficientStorage": _full,
    "XMinioStorageFull": _full,
    "EntityTooLarge": _with(InvalidRequest, "too large for this server: {message}"),
    "BadDigest": _with(Corrupt, "damaged on the way ({message}): try again"),
    "XAmzContentChecksumMismatch": _with(Corrupt, "damaged on the way ({message}): try again"),
    "NotImplemented": _absent,
    "MethodNotAllowed": _with(InvalidRequest, "that cannot be done with it: it may be a delete marker"),
    "InvalidRange": _with(InvalidRequest, "the range lies behind the end of the object"),
    "SlowDown": _busy,
    "ServiceUnavailable": _busy,
    "InternalError": _busy,
}

_STATUSES: dict[int, _Maker] = {
    301: _region,
    403: _denied,
    404: _no_key,
    405: _CODES["MethodNotAllowed"],
    412: _CODES["PreconditionFailed"],
    416: _CODES["InvalidRange"],
    500: _busy,
    501: _absent,
    502: _busy,
    503: _busy,
    504: _busy,
    507: _full,
}


def _unreachable(error: Exception, asked: Asked) -> HoldfastError:
    cause = getattr(error, "kwargs", {}).get("error")
    reason = str(cause).rpartition(": ")[2].rpartition("] ")[2] if cause is not None else "no connection"
    return NodeDown(
        f"{asked.endpoint} cannot be reached ({reason}): check --endpoint-url (AWS_ENDPOINT_URL, or endpoint_url of "
        f"the profile) and that the server runs; `make run` serves at {MAKE_RUN_ENDPOINT}"
    )


def _untrusted(error: Exception, asked: Asked) -> HoldfastError:
    reason = str(getattr(error, "kwargs", {}).get("error", error))
    if "WRONG_VERSION_NUMBER" in reason or "record layer" in reason:
        return NodeDown(f"{asked.endpoint} does not speak TLS there: write http:// in --endpoint-url, or another port")
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        why = reason.partition("certificate verify failed: ")[2].partition(" (_ssl")[0] or "it cannot be verified"
        return AccessDenied(
            f"{asked.endpoint}: its certificate is not trusted ({why}): name the authority's PEM file in "
            "AWS_CA_BUNDLE, or as ca_bundle in the profile"
        )
    return NodeDown(f"{asked.endpoint}: no TLS connection ({reason})")


def _slow(_error: Exception, asked: Asked) -> HoldfastError:
    return Timeout(
        f"{asked.endpoint} does not answer in time: it is busy, or something between drops packets; try again"
    )


def _broken(_error: Exception, asked: Asked) -> HoldfastError:
    about = "" if asked.what == asked.endpoint else f"{asked.what}: "
    tls = ", or write https:// if it speaks TLS there" if asked.endpoint.startswith("http://") else ""
    return Unavailable(f"{about}{asked.endpoint} ended the connection, several times: give the same command again{tls}")


def _not_s3(_error: Exception, asked: Asked) -> HoldfastError:
    return RemoteProtocolError(f"{asked.endpoint} answers, but not as S3 does: check --endpoint-url and its port")


def _plain(kind: type[HoldfastError], words: str) -> Callable[[Exception, Asked], HoldfastError]:
    return lambda error, _asked: kind(words.format(error=error))


# In this order: the first kind that fits.
_LOCAL: tuple[tuple[tuple[type[Exception], ...], Callable[[Exception, Asked], HoldfastError]], ...] = (
    ((boto.NoCredentialsError,), _plain(AccessDenied, NO_CREDENTIALS)),
    ((boto.PartialCredentialsError,), _plain(AccessDenied, "half of a key pair: {error}")),
    (
        (boto.CredentialRetrievalError, boto.TokenRetrievalError, boto.SSOError, boto.RefreshWithMFAUnsupportedError),
        _plain(AccessDenied, "no credentials: {error}: check the profile, or log in again"),
    ),
    ((boto.ProfileNotFound,), _plain(InvalidRequest, "{error}: `aws configure list-profiles` lists those there are")),
    ((boto.ConfigParseError, boto.ConfigNotFound), _plain(InvalidRequest, "{error}: mend the file")),
    ((boto.NoRegionError,), _plain(InvalidRequest, "no region was found: give --region, or set AWS_REGION")),
    ((boto.SSLError,), _untrusted),
    ((boto.ProxyConnectionError,), _plain(NodeDown, "{error}: check HTTPS_PROXY and NO_PROXY")),
    ((boto.ConnectTimeoutError, boto.ReadTimeoutError), _slow),
    ((boto.EndpointConnectionError,), _unreachable),
    ((ResponseParserError,), _not_s3),
    (
        (boto.ConnectionClosedError, boto.HTTPClientError, boto.ResponseStreamingError, boto.IncompleteReadError),
        _broken,
    ),
    (
        (boto.ParamValidationError, boto.InvalidEndpointConfigurationError),
        _plain(InvalidRequest, "{error}"),
    ),
)
