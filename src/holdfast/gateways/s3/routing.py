"""Which verb a request is, and whether everything in it is understood.

Rules. The verbs stand in one table, by what the path names, by method, and by the query parameter that picks the verb.
A request is served only if each of its query parameters, and each of its headers that changes the meaning of a call,
stands among those that its verb understands: all else answers 501, so that nobody is told of a lock, a grant or an
encryption that did not happen. Parameters that begin with "x-" are the clients' own, as in S3.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from holdfast.gateways.s3 import (
    attributes,
    buckets,
    copies,
    delete,
    get_object,
    list_objects,
    metadata,
    multipart,
    post_object,
    put_object,
    tagging,
)
from holdfast.gateways.s3.call import Answer, Call, check_key, is_bucket_name
from holdfast.gateways.s3.checksums import HEADERS as CHECKSUM_HEADERS
from holdfast.gateways.s3.errors import S3Error, not_implemented
from holdfast.gateways.s3.settings import Settings
from holdfast.objects.access import EITHER, NOTHING, READ, WRITE, Permissions


class Level(Enum):
    """What a path names."""

    SERVICE = "service"
    BUCKET = "bucket"
    OBJECT = "object"


@dataclass(frozen=True, slots=True)
class Verb:
    """One operation of S3, under its name there."""

    name: str
    serve: Callable[[Call], Awaitable[Answer]]
    needs: Permissions | None
    """What a key that is not root must have been granted in the bucket, one of these; of NOTHING, root is meant. None
    lets any key call."""
    query: frozenset[str]
    headers: frozenset[str]


# Headers that say nothing about what is to be done, or that the signature check has dealt with.
_ALWAYS = frozenset(
    (
        "x-amz-content-sha256",
        "x-amz-date",
        "x-amz-decoded-content-length",
        "x-amz-expected-bucket-owner",
        "x-amz-request-payer",
        "x-amz-te",
        "x-amz-user-agent",
    )
)

# Headers whose only understood values are the ones that change nothing here.
_DEFAULTS: Mapping[str, frozenset[str]] = {
    "x-amz-acl": frozenset(("private", "bucket-owner-full-control")),
    "x-amz-api-version": frozenset(("2006-03-01",)),
    "x-amz-bucket-object-lock-enabled": frozenset(("false", "False")),
    "x-amz-object-ownership": frozenset(("BucketOwnerEnforced",)),
    "x-amz-storage-class": frozenset(("STANDARD",)),
    "x-amz-optional-object-attributes": frozenset(("RestoreStatus",)),
}

# Standard headers that change what a write means.
_WRITE_CONDITIONS = frozenset(
    ("content-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range")
)

_BODY = CHECKSUM_HEADERS | {"x-amz-sdk-checksum-algorithm", "x-amz-trailer"}
_CONDITIONAL = frozenset(("if-match", "if-none-match"))
_UPLOAD_CHECKSUM = frozenset(("x-amz-checksum-algorithm", "x-amz-checksum-type"))
_TAGGING = frozenset(("x-amz-tagging",))
_SOURCE = frozenset(
    (
        "x-amz-copy-source",
        "x-amz-copy-source-if-match",
        "x-amz-copy-source-if-modified-since",
        "x-amz-copy-source-if-none-match",
        "x-amz-copy-source-if-unmodified-since",
        "x-amz-source-expected-bucket-owner",
    )
)
_DIRECTIVES = frozenset(("x-amz-metadata-directive", "x-amz-tagging-directive", "x-amz-checksum-algorithm"))

# It asks that a lock be overridden. There are no locks, so a delete that ignores it does all that was asked.
_UNLOCKED = frozenset(("x-amz-bypass-governance-retention",))

# Only the root key administers.
_ROOT = NOTHING

_READ_QUERY = ("versionId", "partNumber", *metadata.OVERRIDES)
_LIST = ("prefix", "delimiter", "max-keys", "encoding-type")


def _verb(
    name: str,
    serve: Callable[[Call], Awaitable[Answer]],
    needs: Permissions | None,
    query: tuple[str, ...] = (),
    headers: frozenset[str] = frozenset(),
) -> Verb:
    return Verb(name, serve, needs, frozenset(query), headers)


_PICKED: Mapping[tuple[Level, str], Mapping[str, Verb]] = {
    (Level.SERVICE, "GET"): {
        "": _verb(
            "ListBuckets",
            buckets.list_buckets,
            None,
            ("max-buckets", "prefix", "continuation-token", "bucket-region"),
        )
    },
    (Level.BUCKET, "PUT"): {
        "": _verb("CreateBucket", buckets.create_bucket, _ROOT, (), _BODY),
        "versioning": _verb("PutBucketVersioning", buckets.put_bucket_versioning, _ROOT, ("versioning",), _BODY),
        "tagging": _verb("PutBucketTagging", tagging.put_bucket_tagging, _ROOT, ("tagging",), _BODY),
    },
    (Level.BUCKET, "HEAD"): {"": _verb("HeadBucket", buckets.head_bucket, EITHER)},
    (Level.BUCKET, "DELETE"): {
        "": _verb("DeleteBucket", buckets.delete_bucket, _ROOT),
        "tagging": _verb("DeleteBucketTagging", tagging.delete_bucket_tagging, _ROOT, ("tagging",)),
    },
    (Level.BUCKET, "GET"): {
        "": _verb("ListObjects", list_objects.list_objects, READ, (*_LIST, "marker")),
        "list-type": _verb(
            "ListObjectsV2",
            list_objects.list_objects_v2,
            READ,
            (*_LIST, "list-type", "continuation-token", "start-after", "fetch-owner"),
        ),
        "versions": _verb(
            "ListObjectVersions",
            list_objects.list_object_versions,
            READ,
            (*_LIST, "versions", "key-marker", "version-id-marker"),
        ),
        "uploads": _verb(
            "ListMultipartUploads",
            multipart.list_multipart_uploads,
            WRITE,
            ("uploads", "prefix", "delimiter", "encoding-type", "max-uploads", "key-marker", "upload-id-marker"),
        ),
        "location": _verb("GetBucketLocation", buckets.get_bucket_location, EITHER, ("location",)),
        "versioning": _verb("GetBucketVersioning", buckets.get_bucket_versioning, EITHER, ("versioning",)),
        "tagging": _verb("GetBucketTagging", tagging.get_bucket_tagging, READ, ("tagging",)),
    },
    (Level.BUCKET, "POST"): {
        "delete": _verb("DeleteObjects", delete.delete_objects, WRITE, ("delete",), _BODY | _UNLOCKED)
    },
    (Level.OBJECT, "PUT"): {
        "": _verb("PutObject", put_object.put_object, WRITE, (), _BODY | _CONDITIONAL | _TAGGING),
        "tagging": _verb("PutObjectTagging", tagging.put_object_tagging, WRITE, ("tagging", "versionId"), _BODY),
        "uploadId": _verb("UploadPart", multipart.upload_part, WRITE, ("uploadId", "partNumber"), _BODY),
    },
    (Level.OBJECT, "GET"): {
        "": _verb("GetObject", get_object.get_object, READ, _READ_QUERY, frozenset(("x-amz-checksum-mode",))),
        "attributes": _verb(
            "GetObjectAttributes",
            attributes.get_object_attributes,
            READ,
            ("attributes", "versionId"),
            frozenset(("x-amz-object-attributes", "x-amz-max-parts", "x-amz-part-number-marker")),
        ),
        "torrent": _verb("GetObjectTorrent", get_object.get_object_torrent, READ, ("torrent",)),
        "tagging": _verb("GetObjectTagging", tagging.get_object_tagging, READ, ("tagging", "versionId")),
        "uploadId": _verb("ListParts", multipart.list_parts, WRITE, ("uploadId", "max-parts", "part-number-marker")),
    },
    (Level.OBJECT, "HEAD"): {
        "": _verb("HeadObject", get_object.head_object, READ, _READ_QUERY, frozenset(("x-amz-checksum-mode",))),
    },
    (Level.OBJECT, "DELETE"): {
        "": _verb(
            "DeleteObject",
            delete.delete_object,
            WRITE,
            ("versionId",),
            _UNLOCKED | delete.CONDITION_HEADERS | {"if-match"},
        ),
        "tagging": _verb("DeleteObjectTagging", tagging.delete_object_tagging, WRITE, ("tagging", "versionId")),
        "uploadId": _verb("AbortMultipartUpload", multipart.abort_multipart_upload, WRITE, ("uploadId",)),
    },
    (Level.OBJECT, "POST"): {
        "uploads": _verb(
            "CreateMultipartUpload", multipart.create_multipart_upload, WRITE, ("uploads",), _UPLOAD_CHECKSUM | _TAGGING
        ),
        "uploadId": _verb(
            "CompleteMultipartUpload",
            multipart.complete_multipart_upload,
            WRITE,
            ("uploadId",),
            CHECKSUM_HEADERS | _CONDITIONAL | {"x-amz-checksum-type", "x-amz-mp-object-size"},
        ),
    },
}

# What a put is when it names a source.
_FROM_SOURCE: Mapping[str, Verb] = {
    "PutObject": _verb("CopyObject", copies.copy_object, WRITE, (), _SOURCE | _DIRECTIVES | _CONDITIONAL | _TAGGING),
    "UploadPart": _verb(
        "UploadPartCopy",
        copies.upload_part_copy,
        WRITE,
        ("uploadId", "partNumber"),
        _SOURCE | {"x-amz-copy-source-range"},
    ),
}

# Not picked by path and query, but by what is in the body; its headers are the form's fields.
POST_OBJECT = _verb("PostObject", post_object.post_object, WRITE, (), CHECKSUM_HEADERS)

VERBS: tuple[Verb, ...] = (
    *(verb for picked in _PICKED.values() for verb in picked.values()),
    *_FROM_SOURCE.values(),
    POST_OBJECT,
)

# Verbs whose body becomes an object keep `x-amz-meta-*`; elsewhere such a header means nothing and is let pass.
_USER_PREFIX = metadata.USER_PREFIX


def route(method: str, bucket: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Verb:
    """The verb, every query parameter understood. Raises S3Error."""
    level = Level.OBJECT if key else Level.BUCKET if bucket else Level.SERVICE
    picked = _PICKED.get((level, method))
    if picked is None:
        raise S3Error("MethodNotAllowed", "The specified method is not allowed against this resource.")
    verb = picked.get("")
    for name in query:
        if name in picked:
            verb = picked[name]
            break
    if verb is None:
        raise not_implemented(f"{method} on this resource" if not query else next(iter(query)))
    if "x-amz-copy-source" in headers:
        verb = _FROM_SOURCE.get(verb.name, verb)
    for name in query:
        if name not in verb.query and not name.lower().startswith("x-"):
            raise not_implemented(name)
    if bucket and verb.name != "CreateBucket" and not is_bucket_name(bucket):
        raise S3Error("NoSuchBucket", "The specified bucket does not exist", details={"BucketName": bucket})
    if key:
        check_key(key)
    return verb


def check_headers(verb: Verb, method: str, headers: Mapping[str, str], settings: Settings) -> None:
    """Raises 501 for a header that changes the meaning of a call and that the verb does not carry out."""
    understood = verb.headers
    for name in headers:
        if name.startswith("x-amz-"):
            if name in _ALWAYS or name in understood or name.startswith(_USER_PREFIX):
                continue
            if headers[name] not in _DEFAULTS.get(name, ()):
                raise not_implemented(name)
        elif name in _WRITE_CONDITIONS and name not in understood and method not in ("GET", "HEAD"):
            raise not_implemented(name)
    for name in ("x-amz-expected-bucket-owner", "x-amz-source-expected-bucket-owner"):
        if headers.get(name, settings.owner_id) != settings.owner_id:
            raise S3Error("AccessDenied", "Access Denied")
