"""The versions of a key: which rows a new version, a delete marker or a deletion changes. Pure decisions over rows.

The newest version of a key is its `O` row, older ones are `V` rows (docs/formats/rows.md). These functions are given
what was read and say what to write; whoever calls them commits under the tokens of what was read, and starts again
when a token has changed meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import msgspec
from msgspec import Struct

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import ContentId
from holdfast.meta.interface import Change, Delete, Put, Row
from holdfast.objects.errors import ConditionFailed, NoSuchObject
from holdfast.objects.model import NULL_VERSION, Conditions, ObjectInfo, Versioning, VersionName
from holdfast.objects.rows import VersionRow, object_row_key, version_row_key

UNIQUE_BYTES = 8
_SEQUENCE_BYTES = 8
_NO_PARTS = "-0"
NO_CHECKSUMS: Mapping[str, Sequence[str]] = MappingProxyType({})


class Draft(Struct, frozen=True):
    """A new version, before it is known where in its key's history it will stand."""

    size: int
    etag: str
    modified_ns: int
    headers: Mapping[str, str]
    user_metadata: Mapping[str, str]
    checksums: Mapping[str, str]
    content: ContentId | None
    inline: bytes
    unique: bytes
    delete_marker: bool = False
    tags: Mapping[str, str] = {}


@dataclass(slots=True)
class Step:
    """What a change of a key comes to."""

    changes: list[Change] = field(default_factory=list)
    released: list[ContentId] = field(default_factory=list)
    """Contents that lose one reference."""


def version_id(row: VersionRow) -> str:
    if row.null:
        return NULL_VERSION
    return (row.sequence.to_bytes(_SEQUENCE_BYTES, "big") + row.unique).hex()


def is_named(row: VersionRow, version: VersionName) -> bool:
    return version == (row.sequence if isinstance(version, int) else version_id(row))


def opaque_etag(unique: bytes) -> str:
    """An ETag that is no hash: S3's clients take none with a hyphen for an MD5, and no upload has zero parts."""
    return f"{unique.hex()}{_NO_PARTS}"


def is_of_parts(etag: str) -> bool:
    """Whether this is the ETag of an object that was put in parts."""
    return "-" in etag and not etag.endswith(_NO_PARTS)


def parse_version_id(version: str) -> tuple[int, bytes]:
    """Sequence and unique part. Raises InvalidRequest when it is no id that this store could have given."""
    try:
        raw = bytes.fromhex(version)
    except ValueError:
        raw = b""
    if len(raw) != _SEQUENCE_BYTES + UNIQUE_BYTES or raw.hex() != version:
        raise InvalidRequest("this is not a version id")
    return int.from_bytes(raw[:_SEQUENCE_BYTES], "big"), raw[_SEQUENCE_BYTES:]


def check_conditions(conditions: Conditions, current: VersionRow | None) -> None:
    """Raises ConditionFailed; NoSuchObject when If-Match meets a key that has no current version, as S3 answers."""
    there = current is not None and not current.delete_marker
    if conditions.if_none_match and there:
        raise ConditionFailed("the key has a current version")
    if (
        conditions.unless_match is not None
        and there
        and current is not None
        and conditions.unless_match == current.etag
    ):
        raise ConditionFailed("the current version has this ETag")
    if conditions.if_match is None and conditions.if_size is None and conditions.if_modified_seconds is None:
        return
    if current is None or not there:
        raise NoSuchObject("the key has no current version to match")
    if conditions.if_match not in (None, "*", current.etag):
        raise ConditionFailed("the current version has another ETag")
    if conditions.if_size not in (None, current.size):
        raise ConditionFailed("the current version has another size")
    if conditions.if_modified_seconds not in (None, current.modified_ns // 1_000_000_000):
        raise ConditionFailed("the current version was put at another time")


def add(
    bucket_id: bytes,
    key: bytes,
    versioning: Versioning,
    current: VersionRow | None,
    older_null: Row | None,
    draft: Draft,
) -> tuple[Step, VersionRow]:
    """Put `draft` on top of `current`.

    `older_null` is the `V` row that `current.null_sequence` names, when it does and the bucket is suspended.
    """
    step = Step()
    null = versioning is not Versioning.ENABLED
    null_sequence = 0
    if current is not None:
        if null and current.null:
            release(step, current)
        else:
            step.changes.append(Put(version_row_key(bucket_id, key, current.sequence), as_older(current).encode()))
            null_sequence = current.sequence if current.null else current.null_sequence
        if null and null_sequence:
            assert older_null is not None
            step.changes.append(Delete(older_null.key))
            release(step, VersionRow.decode(older_null.value))
            null_sequence = 0
    row = VersionRow(
        shape=VersionRow.SHAPE,
        sequence=highest(current) + 1 if current is not None else 1,
        unique=draft.unique,
        null=null,
        null_sequence=null_sequence,
        delete_marker=draft.delete_marker,
        size=draft.size,
        etag=draft.etag,
        modified_ns=draft.modified_ns,
        headers=dict(draft.headers),
        user_metadata=dict(draft.user_metadata),
        checksums=dict(draft.checksums),
        content=draft.content,
        inline=draft.inline,
        tags=dict(draft.tags),
    )
    step.changes.append(Put(object_row_key(bucket_id, key), row.encode()))
    return step, row


def remove_current(bucket_id: bytes, key: bytes, current: VersionRow, next_older: Row | None) -> Step:
    """Take the newest version away for good; the next older one, if any, becomes the newest."""
    step = Step()
    release(step, current)
    if next_older is None:
        step.changes.append(Delete(object_row_key(bucket_id, key)))
        return step
    older = VersionRow.decode(next_older.value)
    null_sequence = 0 if older.null else current.null_sequence
    promoted = msgspec.structs.replace(older, null_sequence=null_sequence, given=highest(current))
    step.changes += [Delete(next_older.key), Put(object_row_key(bucket_id, key), promoted.encode())]
    return step


def remove_older(bucket_id: bytes, key: bytes, current: VersionRow, older: Row) -> Step:
    """Take an older version away for good."""
    step = Step()
    row = VersionRow.decode(older.value)
    release(step, row)
    step.changes.append(Delete(older.key))
    if row.null:
        unlinked = msgspec.structs.replace(current, null_sequence=0)
        step.changes.append(Put(object_row_key(bucket_id, key), unlinked.encode()))
    return step


def highest(current: VersionRow) -> int:
    """The highest sequence that the key ever gave: no number comes back while anything of the key is left."""
    return max(current.sequence, current.given)


def as_older(row: VersionRow) -> VersionRow:
    """The row as it stands among the older ones, where `null_sequence` and `given` have no meaning."""
    return msgspec.structs.replace(row, null_sequence=0, given=0) if row.null_sequence or row.given else row


def release(step: Step, row: VersionRow) -> None:
    if row.content is not None:
        step.released.append(ContentId(row.content))


def info(
    key: str,
    row: VersionRow,
    *,
    latest: bool,
    parts: tuple[int, ...] = (),
    part_checksums: Mapping[str, Sequence[str]] = NO_CHECKSUMS,
) -> ObjectInfo:
    return ObjectInfo(
        key=key,
        version=version_id(row),
        latest=latest,
        delete_marker=row.delete_marker,
        size=row.size,
        etag=row.etag,
        modified_ns=row.modified_ns,
        headers=row.headers,
        user_metadata=row.user_metadata,
        checksums=row.checksums,
        parts=parts,
        part_checksums=part_checksums,
        tags=row.tags,
        number=row.sequence,
    )
