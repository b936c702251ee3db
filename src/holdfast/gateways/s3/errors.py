"""What S3 answers when a call cannot be served: the one map from our error tree to S3's codes.

Rules. Every code that this gateway can answer stands in `STATUS`, so that metrics and docs can list them. A verb raises
`S3Error` for what only S3 knows (a malformed header); everything else comes up as a `HoldfastError` and is mapped
here, by the closest class in its ancestry. Messages of our own errors are not shown for what is our fault (5xx): they
may name drives and paths.
"""

from collections.abc import Mapping

from holdfast.asgi.errors import SenderSilent
from holdfast.core import errors as core
from holdfast.objects import errors as objects

STATUS: Mapping[str, int] = {
    "AccessDenied": 403,
    "AuthorizationHeaderMalformed": 400,
    "AuthorizationQueryParametersError": 400,
    "BadDigest": 400,
    "BucketAlreadyExists": 409,
    "BucketAlreadyOwnedByYou": 409,
    "BucketNotEmpty": 409,
    "EntityTooLarge": 400,
    "EntityTooSmall": 400,
    "IllegalLocationConstraintException": 400,
    "IllegalVersioningConfigurationException": 400,
    "IncompleteBody": 400,
    "IncorrectNumberOfFilesInPostRequest": 400,
    "InsufficientStorage": 507,
    "InternalError": 500,
    "InvalidAccessKeyId": 403,
    "InvalidArgument": 400,
    "InvalidBucketName": 400,
    "InvalidDigest": 400,
    "InvalidLocationConstraint": 400,
    "InvalidPart": 400,
    "InvalidPartOrder": 400,
    "InvalidPolicyDocument": 400,
    "InvalidRange": 416,
    "InvalidRequest": 400,
    "InvalidStorageClass": 400,
    "InvalidToken": 400,
    "InvalidTag": 400,
    "InvalidURI": 400,
    "KeyTooLongError": 400,
    "MalformedPOSTRequest": 400,
    "MalformedTrailerError": 400,
    "MalformedXML": 400,
    "MaxMessageLengthExceeded": 400,
    "MaxPostPreDataLengthExceededError": 400,
    "MetadataTooLarge": 400,
    "MethodNotAllowed": 405,
    "MissingContentLength": 411,
    "MissingSecurityHeader": 400,
    "NoSuchBucket": 404,
    "NoSuchKey": 404,
    "NoSuchTagSet": 404,
    "NoSuchUpload": 404,
    "NoSuchVersion": 404,
    "NotImplemented": 501,
    "NotModified": 304,
    "PreconditionFailed": 412,
    "QuotaExceeded": 403,
    "RequestTimeTooSkewed": 403,
    "RequestTimeout": 400,
    "ServiceUnavailable": 503,
    "SignatureDoesNotMatch": 403,
    "SlowDown": 503,
    "XAmzContentSHA256Mismatch": 400,
}


class S3Error(Exception):
    """An answer other than success. `details` become elements of the error document, `headers` go with the answer."""

    __slots__ = ("code", "details", "headers", "message")

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        details: Mapping[str, str] | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        assert code in STATUS, code
        super().__init__(code, message)
        self.code = code
        self.message = message or code
        self.details: Mapping[str, str] = details or {}
        self.headers = headers

    @property
    def status(self) -> int:
        return STATUS[self.code]


# S3's code, and the message to show; "" shows the error's own.
_MAPPED: Mapping[type[core.HoldfastError], tuple[str, str]] = {
    core.HoldfastError: ("InternalError", "We encountered an internal error. Please try again."),
    core.NotFound: ("NoSuchKey", ""),
    objects.NoSuchBucket: ("NoSuchBucket", "The specified bucket does not exist"),
    objects.NoSuchObject: ("NoSuchKey", "The specified key does not exist."),
    objects.NoSuchVersion: ("NoSuchVersion", "The specified version does not exist."),
    objects.NoSuchUpload: (
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed.",
    ),
    core.AlreadyExists: (
        "BucketAlreadyOwnedByYou",
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    core.PreconditionFailed: ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
    objects.BucketNotEmpty: ("BucketNotEmpty", "The bucket you tried to delete is not empty"),
    core.InvalidName: ("InvalidArgument", ""),
    core.InvalidRequest: ("InvalidRequest", ""),
    objects.KeyTooLong: ("KeyTooLongError", "Your key is too long"),
    objects.BadDigest: ("BadDigest", ""),
    objects.IncompleteBody: (
        "IncompleteBody",
        "You did not provide the number of bytes specified by the Content-Length HTTP header.",
    ),
    objects.InvalidPart: (
        "InvalidPart",
        "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified "
        "entity tag may not match the part's entity tag.",
    ),
    objects.InvalidPartOrder: ("InvalidPartOrder", "The list of parts was not in ascending order."),
    objects.EntityTooSmall: (
        "EntityTooSmall",
        "Your proposed upload is smaller than the minimum allowed size",
    ),
    objects.InvalidTag: ("InvalidTag", ""),
    core.QuotaExceeded: ("QuotaExceeded", ""),
    core.AccessDenied: ("AccessDenied", "Access Denied"),
    core.Corrupt: ("InternalError", "The stored data failed its checks and could not be rebuilt."),
    core.Unavailable: ("ServiceUnavailable", "Please reduce your request rate, or try again later."),
    SenderSilent: (
        "RequestTimeout",
        "Your socket connection to the server was not read from or written to within the timeout period.",
    ),
    core.Timeout: ("SlowDown", "Please reduce your request rate."),
    core.Full: ("InsufficientStorage", "There is no space left. Reads, listings and deletes still work."),
    core.Ambiguous: ("InternalError", "The outcome of the request is not known. Look before you try again."),
    core.ProtocolError: ("InternalError", "We encountered an internal error. Please try again."),
}


def from_holdfast(error: core.HoldfastError) -> S3Error:
    """The S3 error for one of ours."""
    for cls in type(error).__mro__:
        mapped = _MAPPED.get(cls)
        if mapped is not None:
            code, message = mapped
            return S3Error(code, message or str(error))
    raise AssertionError(type(error))  # HoldfastError itself is in the map


def not_implemented(what: str) -> S3Error:
    """The answer to a header, sub-resource or value whose meaning this gateway does not carry out."""
    return S3Error(
        "NotImplemented",
        f"A header or parameter you provided implies functionality that is not implemented: {what}",
        details={"Header": what},
    )
