"""What can go wrong with buckets, objects and uploads, told apart as finely as a protocol in front must answer.

    NotFound
    ├── NoSuchBucket
    ├── NoSuchObject        no current version: never put, deleted, or a delete marker on top
    │   └── MarkedDeleted   the delete marker on top
    ├── NoSuchVersion       the key may be there, that version is not
    └── NoSuchUpload        never started, completed with other parts, aborted or expired
    PreconditionFailed
    ├── BucketNotEmpty
    │   └── UploadsInFlight only uploads are left in it
    └── ConditionFailed     a condition of the caller on the current version
    Unavailable
    ├── Contended           too many writers of one key
    └── SessionExpired      an upload showed no sign of life for too long
    InvalidRequest
    ├── KeyTooLong          longer than S3 allows
    ├── BadDigest           the body's hash is not the one that the caller announced
    ├── IncompleteBody      the body ended before its announced length
    ├── InvalidPart         a part named at completion is not there, or has another ETag or checksum
    ├── InvalidPartOrder    part numbers at completion do not rise
    ├── EntityTooSmall      a part that is not the last is shorter than `PART_MIN_BYTES`
    └── InvalidTag          a tag that may not be, or too many of them

As in `core.errors`, `code` is stable and the message is for people.
"""

from holdfast.core.errors import InvalidRequest, NotFound, PreconditionFailed, Unavailable
from holdfast.objects.model import ObjectInfo


class NoSuchBucket(NotFound):
    """No bucket has that name."""

    code = "no_such_bucket"


class NoSuchObject(NotFound):
    """The key has no current version."""

    code = "no_such_object"


class MarkedDeleted(NoSuchObject):
    """The newest version is a delete marker."""

    code = "marked_deleted"

    def __init__(self, marker: ObjectInfo) -> None:
        super().__init__("the newest version of the key is a delete marker")
        self.marker = marker


class NoSuchVersion(NotFound):
    """The key has no version of that id."""

    code = "no_such_version"


class NoSuchUpload(NotFound):
    """No upload in flight has that id."""

    code = "no_such_upload"


class BucketNotEmpty(PreconditionFailed):
    """The bucket still holds a version or a delete marker."""

    code = "bucket_not_empty"


class UploadsInFlight(BucketNotEmpty):
    """The bucket holds no version, but uploads that were neither completed nor aborted."""

    code = "uploads_in_flight"


class ConditionFailed(PreconditionFailed):
    """If-Match or If-None-Match does not hold of the current version."""

    code = "condition_failed"


class Contended(Unavailable):
    """So many writers wanted this key at once that this one gave up. Nothing was changed; try again."""

    code = "contended"


class SessionExpired(Unavailable):
    """The process that wrote showed no sign of life for so long that its uploads were given up. Nothing was changed."""

    code = "session_expired"


class KeyTooLong(InvalidRequest):
    """An object key is longer than `KEY_MAX_BYTES`."""

    code = "key_too_long"


class BadDigest(InvalidRequest):
    """The body arrived whole, and its hash is not the announced one. Nothing was stored."""

    code = "bad_digest"


class IncompleteBody(InvalidRequest):
    """The body ended before its announced length. Nothing was stored."""

    code = "incomplete_body"


class InvalidPart(InvalidRequest):
    """A part named at completion is not there, or is not the one that was named."""

    code = "invalid_part"


class InvalidPartOrder(InvalidRequest):
    """Part numbers at completion must rise."""

    code = "invalid_part_order"


class EntityTooSmall(InvalidRequest):
    """A part other than the last is too short."""

    code = "entity_too_small"


class InvalidTag(InvalidRequest):
    """A tag's key or value is not as it may be, or there are too many tags."""

    code = "invalid_tag"
