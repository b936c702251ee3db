"""A store in a dict, for the gateway's tests: what `objects.Store` promises, without durability or blocks."""

import hashlib
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

from awscrt import checksums as crt

from holdfast.core.errors import AlreadyExists, HoldfastError, PreconditionFailed
from holdfast.core.ids import Buffer
from holdfast.core.ranges import ByteRange
from holdfast.objects.errors import (
    BucketNotEmpty,
    EntityTooSmall,
    IncompleteBody,
    InvalidPart,
    InvalidPartOrder,
    NoSuchBucket,
    NoSuchObject,
    NoSuchUpload,
    NoSuchVersion,
)
from holdfast.objects.model import (
    NO_CONDITIONS,
    NULL_VERSION,
    Body,
    Bucket,
    CompletedPart,
    Conditions,
    Deleted,
    Digests,
    Listing,
    ObjectInfo,
    Part,
    PutOptions,
    Upload,
    UploadPage,
    Versioning,
)

_NOW_NS = 1_700_000_000_000_000_000
_PIECE_BYTES = 256 * 1024
_CRCS = {"crc32": (zlib.crc32, 4), "crc32c": (crt.crc32c, 4), "crc64nvme": (crt.crc64nvme, 8)}


@dataclass
class _Version:
    info: ObjectInfo
    data: bytes


@dataclass
class _Upload:
    upload: Upload
    options: PutOptions
    parts: dict[int, tuple[Part, bytes]] = field(default_factory=dict)


@dataclass
class _Bucket:
    bucket: Bucket
    keys: dict[str, list[_Version]] = field(default_factory=dict)
    uploads: dict[str, _Upload] = field(default_factory=dict)
    completed: dict[str, ObjectInfo] = field(default_factory=dict)


class FakeReader:
    def __init__(self, version: _Version) -> None:
        self.info = version.info
        self._data = version.data

    async def read(self, range: ByteRange | None = None) -> AsyncIterator[Buffer]:
        data = memoryview(self._data)
        if range is not None:
            data = data[range.start : range.end]
        for start in builtin_range(0, len(data), _PIECE_BYTES):
            yield data[start : start + _PIECE_BYTES]


builtin_range = range


async def _collect(body: Body, options: PutOptions) -> tuple[bytes, Digests]:
    data = bytes(body) if isinstance(body, Buffer) else b"".join([bytes(piece) async for piece in body])
    if options.size is not None and options.size != len(data):
        raise IncompleteBody("short")
    values = {"md5": hashlib.md5(data).digest()}
    for name in options.digests:
        if name in _CRCS:
            function, length = _CRCS[name]
            values[name] = function(data).to_bytes(length)
        else:
            values[name] = hashlib.new(name, data).digest()
    return data, Digests(len(data), values)


class FakeStore:
    def __init__(self) -> None:
        self.buckets: dict[str, _Bucket] = {}
        self._ids = count(1)

    def _open(self, name: str) -> _Bucket:
        if name not in self.buckets:
            raise NoSuchBucket(name)
        return self.buckets[name]

    async def create_bucket(self, name: str, *, region: str = "") -> Bucket:
        if name in self.buckets:
            raise AlreadyExists(name)
        self.buckets[name] = _Bucket(Bucket(name, _NOW_NS, Versioning.OFF, region))
        return self.buckets[name].bucket

    async def bucket(self, name: str) -> Bucket:
        return self._open(name).bucket

    async def delete_bucket(self, name: str) -> None:
        if self._open(name).keys:
            raise BucketNotEmpty(name)
        del self.buckets[name]

    async def list_buckets(self, *, after: str = "", prefix: str = "", limit: int = 1000) -> list[Bucket]:
        names = sorted(name for name in self.buckets if name > after and name.startswith(prefix))
        return [self.buckets[name].bucket for name in names[:limit]]

    async def set_versioning(self, bucket: str, versioning: Versioning) -> None:
        opened = self._open(bucket)
        opened.bucket = replace(opened.bucket, versioning=versioning)

    def _check(self, opened: _Bucket, key: str, conditions: Conditions) -> None:
        current = opened.keys.get(key, [None])[-1]
        if current is not None and current.info.delete_marker:
            current = None
        if conditions.if_none_match and current is not None:
            raise PreconditionFailed("there")
        if conditions.if_match is not None:
            if current is None:
                raise NoSuchObject(key)
            if conditions.if_match not in ("*", current.info.etag):
                raise PreconditionFailed("etag")

    def _add(self, opened: _Bucket, info: ObjectInfo, data: bytes) -> ObjectInfo:
        versions = opened.keys.setdefault(info.key, [])
        if opened.bucket.versioning is Versioning.ENABLED:
            info = replace(info, version=f"{next(self._ids):016x}")
        else:
            versions[:] = [version for version in versions if version.info.version != NULL_VERSION]
        versions.append(_Version(info, data))
        return info

    async def put_object(self, bucket: str, key: str, body: Body, options: PutOptions) -> ObjectInfo:
        opened = self._open(bucket)
        data, digests = await _collect(body, options)
        checksums = options.check(digests) if options.check is not None else {}
        self._check(opened, key, options.conditions)
        info = ObjectInfo(
            key,
            NULL_VERSION,
            True,
            False,
            len(data),
            digests.values["md5"].hex(),
            _NOW_NS,
            options.headers,
            options.user_metadata,
            checksums,
        )
        return self._add(opened, info, data)

    def _find(self, bucket: str, key: str, version: str | None) -> _Version:
        versions = self._open(bucket).keys.get(key, [])
        if version is not None:
            for candidate in versions:
                if candidate.info.version == version:
                    return candidate
            raise NoSuchVersion(version)
        if not versions or versions[-1].info.delete_marker:
            raise NoSuchObject(key)
        return versions[-1]

    async def object_info(self, bucket: str, key: str, version: str | None = None) -> ObjectInfo:
        return self._find(bucket, key, version).info

    async def open_object(self, bucket: str, key: str, version: str | None = None) -> FakeReader:
        return FakeReader(self._find(bucket, key, version))

    async def delete_object(
        self, bucket: str, key: str, version: str | None = None, conditions: Conditions = NO_CONDITIONS
    ) -> Deleted:
        opened = self._open(bucket)
        self._check(opened, key, conditions)
        if version is None and opened.bucket.versioning is not Versioning.OFF:
            info = self._add(opened, ObjectInfo(key, NULL_VERSION, True, True, 0, "", _NOW_NS), b"")
            return Deleted(info.version, True, True)
        versions = opened.keys.get(key, [])
        wanted = version or NULL_VERSION
        gone = [candidate for candidate in versions if candidate.info.version == wanted]
        versions[:] = [candidate for candidate in versions if candidate.info.version != wanted]
        if not versions:
            opened.keys.pop(key, None)
        return Deleted(version, bool(gone and gone[0].info.delete_marker), bool(gone))

    async def delete_objects(
        self, bucket: str, keys: Sequence[tuple[str, str | None]]
    ) -> list[Deleted | HoldfastError]:
        return [await self.delete_object(bucket, key, version) for key, version in keys]

    async def list_objects(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: str = "",
        resume: str | None = None,
        limit: int = 1000,
    ) -> Listing:
        opened = self._open(bucket)
        found: dict[str, ObjectInfo | None] = {}
        for key in sorted(opened.keys):
            info = opened.keys[key][-1].info
            if not key.startswith(prefix) or info.delete_marker:
                continue
            head, separator, _ = key[len(prefix) :].partition(delimiter) if delimiter else (key, "", "")
            name = prefix + head + separator if separator else key
            if name > (bytes.fromhex(resume).decode() if resume else after):
                found[name] = None if separator else info
        page = list(found.items())[:limit]
        return Listing(
            tuple(info for _, info in page if info is not None),
            tuple(name for name, info in page if info is None),
            page[-1][0].encode().hex() if len(found) > limit else None,
        )

    async def list_versions(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> Listing:
        opened = self._open(bucket)
        infos = [
            replace(version.info, latest=position == 0)
            for key in sorted(opened.keys)
            if key.startswith(prefix)
            for position, version in enumerate(reversed(opened.keys[key]))
        ]
        if after is not None:
            key, version_id = after
            rest = [info for info in infos if info.key > key]
            same = [info for info in infos if info.key == key]
            ids = [info.version for info in same]
            infos = (same[ids.index(version_id) + 1 :] if version_id in ids else []) + rest
        return Listing(tuple(infos[:limit]), (), "more" if len(infos) > limit else None)

    def _upload(self, bucket: str, key: str, upload_id: str) -> _Upload:
        found = self._open(bucket).uploads.get(upload_id)
        if found is None or found.upload.key != key:
            raise NoSuchUpload(upload_id)
        return found

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> Upload:
        upload = Upload(key, f"{next(self._ids):032x}", _NOW_NS)
        self._open(bucket).uploads[upload.id] = _Upload(upload, options)
        return upload

    async def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, body: Body, options: PutOptions
    ) -> Part:
        upload = self._upload(bucket, key, upload_id)
        data, digests = await _collect(body, options)
        checksums = options.check(digests) if options.check is not None else {}
        part = Part(number, len(data), digests.values["md5"].hex(), _NOW_NS, checksums)
        upload.parts[number] = (part, data)
        return part

    async def list_parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[Part], bool]:
        parts = [part for number, (part, _) in sorted(self._upload(bucket, key, upload_id).parts.items())]
        parts = [part for part in parts if part.number > after]
        return parts[:limit], len(parts) > limit

    async def list_uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadPage:
        uploads = sorted(
            (entry.upload for entry in self._open(bucket).uploads.values()), key=lambda upload: (upload.key, upload.id)
        )
        uploads = [
            upload
            for upload in uploads
            if upload.key.startswith(prefix)
            and (upload.key > after[0] or (upload.key == after[0] and bool(after[1]) and upload.id > after[1]))
        ]
        page = uploads[:limit]
        return UploadPage(tuple(page), (), (page[-1].key, page[-1].id) if len(uploads) > limit else None)

    async def complete_upload(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[CompletedPart], options: PutOptions
    ) -> ObjectInfo:
        opened = self._open(bucket)
        if upload_id in opened.completed:
            return opened.completed[upload_id]
        upload = self._upload(bucket, key, upload_id)
        if [part.number for part in parts] != sorted({part.number for part in parts}):
            raise InvalidPartOrder("order")
        for claim in parts:
            if claim.number not in upload.parts or upload.parts[claim.number][0].etag != claim.etag:
                raise InvalidPart("part")
        chosen = [upload.parts[part.number] for part in parts]
        if any(part.size < 5 * 1024 * 1024 for part, _ in chosen[:-1]):
            raise EntityTooSmall("small")
        data = b"".join(data for _, data in chosen)
        etags = b"".join(bytes.fromhex(part.etag) for part, _ in chosen)
        checksums = options.check(Digests(len(data), {})) if options.check is not None else {}
        self._check(opened, key, options.conditions)
        info = ObjectInfo(
            key,
            NULL_VERSION,
            True,
            False,
            len(data),
            f"{hashlib.md5(etags).hexdigest()}-{len(parts)}",
            _NOW_NS,
            upload.options.headers,
            upload.options.user_metadata,
            checksums,
            tuple(part.size for part, _ in chosen),
        )
        opened.completed[upload_id] = info = self._add(opened, info, data)
        del opened.uploads[upload_id]
        return info

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        self._upload(bucket, key, upload_id)
        del self._open(bucket).uploads[upload_id]
