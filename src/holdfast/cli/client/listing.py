"""What is in a bucket: objects, folders and versions, in the order of the server's listing."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.digests import etag_of


@dataclass(frozen=True, slots=True)
class Entry:
    """An object, or one version of it."""

    key: str
    size: int
    modified: datetime
    etag: str
    """Without quotes; "" of a delete marker."""
    version_id: str = ""
    is_latest: bool = True
    is_marker: bool = False


@dataclass(frozen=True, slots=True)
class Folder:
    """What a delimiter rolls up: everything whose key begins so."""

    prefix: str


def objects(connection: Connection, bucket: str, prefix: str = "") -> Iterator[Entry]:
    """Every object whose key begins with `prefix`."""
    for page in connection.pages("list_objects_v2", bucket, Prefix=prefix):
        for entry in page.get("Contents", ()):
            yield _entry(entry)


def level(connection: Connection, bucket: str, prefix: str = "") -> Iterator[Entry | Folder]:
    """One level: the objects, and the folders beneath it. Each page is in the order of keys."""
    for page in connection.pages("list_objects_v2", bucket, Prefix=prefix, Delimiter="/"):
        found: list[Entry | Folder] = [_entry(entry) for entry in page.get("Contents", ())]
        found += [Folder(entry["Prefix"]) for entry in page.get("CommonPrefixes", ())]
        found.sort(key=lambda one: (one.key if isinstance(one, Entry) else one.prefix).encode())
        yield from found


def versions(connection: Connection, bucket: str, prefix: str = "") -> Iterator[Entry]:
    """Every version and delete marker, newest first for each key."""
    for page in connection.pages("list_object_versions", bucket, Prefix=prefix):
        found = [_version(entry, is_marker=False) for entry in page.get("Versions", ())]
        found += [_version(entry, is_marker=True) for entry in page.get("DeleteMarkers", ())]
        # The two lists are apart in the answer, and a stable sort keeps each one's order within a key.
        found.sort(key=lambda entry: entry.modified, reverse=True)
        found.sort(key=lambda entry: (entry.key.encode(), not entry.is_latest))
        yield from found


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload in parts that was neither completed nor aborted."""

    key: str
    upload_id: str
    started: datetime


def uploads(connection: Connection, bucket: str, prefix: str = "") -> Iterator[Begun]:
    """Every unfinished upload of a key that begins with `prefix`."""
    for page in connection.pages("list_multipart_uploads", bucket, Prefix=prefix):
        for upload in page.get("Uploads", ()):
            yield Begun(upload["Key"], upload["UploadId"], upload["Initiated"])


def part_bytes(connection: Connection, bucket: str, begun: Begun) -> int:
    """How much of an unfinished upload has arrived. Raises NotFound when it ended meanwhile."""
    pages = connection.pages("list_parts", bucket, Key=begun.key, UploadId=begun.upload_id)
    return sum(int(part["Size"]) for page in pages for part in page.get("Parts", ()))


def inside(connection: Connection, remote: Remote) -> Iterator[Entry]:
    """Every object in a folder, which may be spelled without its last slash."""
    return objects(connection, remote.bucket, remote.prefix)


def named(connection: Connection, remote: Remote, version_id: str = "") -> dict[str, Any]:
    """HEAD of one object, checksums included. Raises NotFound."""
    chosen = {"VersionId": version_id} if version_id else {}
    return connection.call("head_object", remote.bucket, remote.key, ChecksumMode="ENABLED", **chosen)


def _entry(entry: dict[str, Any]) -> Entry:
    return Entry(entry["Key"], int(entry["Size"]), entry["LastModified"], etag_of(entry))


def _version(entry: dict[str, Any], *, is_marker: bool) -> Entry:
    return Entry(
        key=entry["Key"],
        size=int(entry.get("Size", 0)),
        modified=entry["LastModified"],
        etag=etag_of(entry),
        version_id=entry.get("VersionId", "null"),
        is_latest=bool(entry.get("IsLatest")),
        is_marker=is_marker,
    )
