"""What the product's own API speaks of: buckets, objects, versions, uploads. Values only, no behaviour."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from enum import StrEnum

from msgspec import Struct

from holdfast.core.ids import Buffer
from holdfast.core.limits import OBJECT_MAX_BYTES

NULL_VERSION = "null"
"""The version id of an object that was put while its bucket kept no versions."""

VersionName = str | int
"""What names one version of a key: its id, or its number (`ObjectInfo.number`)."""


class Versioning(StrEnum):
    """Whether a bucket keeps old versions. A bucket that ever kept them can only suspend."""

    OFF = "off"
    ENABLED = "enabled"
    SUSPENDED = "suspended"


class Bucket(Struct, frozen=True):
    name: str
    created_ns: int
    versioning: Versioning
    region: str = ""
    tags: Mapping[str, str] = {}


class Digests(Struct, frozen=True):
    """Hashes of a body as it arrived, in raw bytes, by name: those that were asked for."""

    size: int
    values: Mapping[str, bytes]


class ObjectInfo(Struct, frozen=True):
    """One version of one object."""

    key: str
    version: str
    """Opaque, safe in a URL; NULL_VERSION for the unversioned one."""
    latest: bool
    delete_marker: bool
    size: int
    etag: str
    """Without quotes: the MD5 in hex; for multipart the MD5 of the parts' MD5s and "-" and their number; for what was
    put without an MD5 something random that ends in "-0"."""
    modified_ns: int
    headers: Mapping[str, str] = {}
    """System metadata as it is answered: lower-case names such as "content-type", "cache-control"."""
    user_metadata: Mapping[str, str] = {}
    """`x-amz-meta-*`, lower-case, without that prefix."""
    checksums: Mapping[str, str] = {}
    """By algorithm in lower case ("crc32c", "sha256", ...), base64, with "-N" behind a composite one."""
    parts: tuple[int, ...] = ()
    """Sizes of the parts of a multipart object, in order; empty for one that was put whole."""
    part_checksums: Mapping[str, Sequence[str]] = {}
    """By algorithm, the checksums of those parts, as far as all of them have one."""
    tags: Mapping[str, str] = {}
    number: int = 0
    """1 for the first version of the key, then one more than any before; delete markers count, and so does what was
    replaced without being kept. It stays with its version whatever becomes of the others, and is not given again as
    long as anything of the key is left."""


class Conditions(Struct, frozen=True):
    """What must hold of the current version, or of the one that a deletion names, for a write to go on; decided in the
    commit, exact under any race."""

    if_none_match: bool = False
    """Nothing may have that key (If-None-Match: *)."""
    if_match: str | None = None
    """The current version must have this ETag (without quotes); "*" is any."""
    unless_match: str | None = None
    """No current version may have this ETag (If-None-Match with one)."""
    if_size: int | None = None
    """The current version must have so many bytes."""
    if_modified_seconds: int | None = None
    """It must have been put in this second since 1970."""


NO_CONDITIONS = Conditions()


class PutOptions(Struct, frozen=True):
    headers: Mapping[str, str] = {}
    user_metadata: Mapping[str, str] = {}
    conditions: Conditions = NO_CONDITIONS
    md5: bool = True
    """Whether the ETag is the body's MD5, which S3's clients rely on. It is the dearest hash of all: without it a body
    is hashed only if `digests` names something. Parts of an upload always have theirs."""
    digests: tuple[str, ...] = ()
    """Further hashes to compute while the body streams by: names as in hashlib, "crc32", "crc32c", "crc64nvme"."""
    check: Callable[[Digests], Mapping[str, str]] | None = None
    """Called once the body has ended and before anything becomes visible. Raises to refuse the upload (nothing is
    stored then); returns the checksums to keep with the object (`ObjectInfo.checksums`)."""
    size: int | None = None
    """The body's length when it is known in advance; a body of another length is refused."""
    size_hint: int = 0
    """About how long the body will be, where that is not known to the byte: how it is best taken in depends on it."""
    size_max: int = OBJECT_MAX_BYTES
    """A longer body is refused as soon as that is seen."""
    tags: Mapping[str, str] = {}
    checksum: tuple[str, str] | None = None
    """Of an upload in parts: algorithm and type of the checksum that it is to have."""


class NewObject(Struct, frozen=True):
    """One of many small objects that are put at once."""

    key: str
    body: Buffer
    options: PutOptions = PutOptions()


class CopySource(Struct, frozen=True):
    """What to copy: a version of an object, the newest unless one is named."""

    bucket: str
    key: str
    version: str | None = None
    check: Callable[[ObjectInfo], None] | None = None
    """Called with the source as it was found; raises to refuse."""


class CopyOptions(Struct, frozen=True):
    """What a copy has instead of what its source has; None is as the source."""

    headers: Mapping[str, str] | None = None
    user_metadata: Mapping[str, str] | None = None
    tags: Mapping[str, str] | None = None
    checksum: str | None = None
    """The algorithm of the copy's checksum."""
    conditions: Conditions = NO_CONDITIONS
    """Of the version that the copy replaces."""


class Deleted(Struct, frozen=True):
    """What a deletion came to."""

    version: str | None
    """The version that is gone, or with `delete_marker` the marker's; None in a bucket that keeps no versions."""
    delete_marker: bool
    """A delete marker was made, or the version that is gone was one."""
    existed: bool


class Listing(Struct, frozen=True):
    """A page of a listing, in key order, folded prefixes in their place among the objects."""

    objects: tuple[ObjectInfo, ...]
    prefixes: tuple[str, ...]
    resume: str | None
    """Opaque continuation; None when this was the last page."""


class Names(Struct, frozen=True):
    """A page of the keys of a bucket that have a current version, in their order."""

    keys: tuple[str, ...]
    resume: str | None
    """Opaque continuation; None when this was the last page."""


class Part(Struct, frozen=True):
    number: int
    size: int
    etag: str
    modified_ns: int
    checksums: Mapping[str, str] = {}


class Copied(Struct, frozen=True):
    """A copy, and the version that it was made of."""

    made: ObjectInfo
    source: ObjectInfo


class CopiedPart(Struct, frozen=True):
    """A part that was copied, and the version that it was made of."""

    made: Part
    source: ObjectInfo


class Upload(Struct, frozen=True):
    key: str
    id: str
    created_ns: int
    checksum: tuple[str, str] | None = None
    """Algorithm and type that were asked for when it was started. Not in listings."""


class UploadPage(Struct, frozen=True):
    uploads: tuple[Upload, ...]
    prefixes: tuple[str, ...]
    resume: tuple[str, str] | None
    """Key marker and upload-id marker of the next page."""


class CompletedPart(Struct, frozen=True):
    """A part as the client names it when it completes an upload."""

    number: int
    etag: str
    checksums: Mapping[str, str] = {}


Body = Buffer | AsyncIterator[Buffer]
"""A body to store: whole, when it is small and here already, or as it arrives. Chunks may be reused by the iterator
once the next one is asked for."""
