"""Listings: pages of objects, of versions, with keys folded at a delimiter.

A page costs what it returns: the metadata engine skips a folded group, and `O` rows hold newest versions alone, so
old versions do not slow a listing of objects. A delete marker on top of a key is skipped here, and a page of nothing
but markers is scanned on, in bounded steps.
"""

from holdfast.core.errors import InvalidRequest
from holdfast.core.ranges import KeyRange, prefix_end
from holdfast.meta.interface import Fold, Folded, Meta, Row
from holdfast.objects.buckets import OpenBucket
from holdfast.objects.model import Listing, Names, ObjectInfo, Versioning
from holdfast.objects.rows import (
    BUCKET_ID_BYTES,
    OBJECTS,
    VERSIONS,
    VersionRow,
    escape,
    object_row_key,
    version_row_key,
    version_row_parts,
)
from holdfast.objects.versions import info, parse_version_id

_HEAD_BYTES = 1 + BUCKET_ID_BYTES


class Lister:
    """Reads `O` and `V` rows in order."""

    def __init__(self, meta: Meta) -> None:
        self._meta = meta

    async def objects(
        self, bucket: OpenBucket, *, prefix: str, delimiter: str, after: str, resume: str | None, limit: int
    ) -> Listing:
        """Newest versions that are no delete markers, in the order of keys, from behind the key `after`.

        `after` may also be a folded prefix that an earlier page ended with: all that it stands for is skipped.
        """
        base = object_row_key(bucket.id, prefix.encode())
        start = base
        if resume is not None:
            start = max(start, OBJECTS + bucket.id + _decode_resume(resume))
        elif after:
            start = max(start, _behind(bucket, prefix, delimiter, after))
        fold = Fold(delimiter.encode(), len(base)) if delimiter else None
        end = prefix_end(base)
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        while (wanted := limit - len(objects) - len(prefixes)) > 0:
            page = await self._meta.scan(KeyRange(start, end), limit=wanted, fold=fold)
            for entry in page.entries:
                if isinstance(entry, Folded):
                    if await self._shows(KeyRange(entry.prefix, prefix_end(entry.prefix))):
                        prefixes.append(entry.prefix[_HEAD_BYTES:].decode())
                    continue
                row = VersionRow.decode(entry.value)
                if not row.delete_marker:
                    objects.append(info(entry.key[_HEAD_BYTES:].decode(), row, latest=True))
            if page.resume is None:
                return Listing(tuple(objects), tuple(prefixes), None)
            start = page.resume
        if not await self._shows(KeyRange(start, end)):
            return Listing(tuple(objects), tuple(prefixes), None)
        return Listing(tuple(objects), tuple(prefixes), start[_HEAD_BYTES:].hex())

    async def names(self, bucket: OpenBucket, *, prefix: str, after: str, resume: str | None, limit: int) -> Names:
        """The keys that `objects` would list. In a bucket that never kept versions there are no delete markers, and
        keys alone are read."""
        if bucket.versioning is not Versioning.OFF:
            page = await self.objects(bucket, prefix=prefix, delimiter="", after=after, resume=resume, limit=limit)
            return Names(tuple(found.key for found in page.objects), page.resume)
        base = object_row_key(bucket.id, prefix.encode())
        start = base
        if resume is not None:
            start = max(start, OBJECTS + bucket.id + _decode_resume(resume))
        elif after:
            start = max(start, _behind(bucket, prefix, "", after))
        found = await self._meta.scan(KeyRange(start, prefix_end(base)), limit=limit, values=False)
        keys = tuple(entry.key[_HEAD_BYTES:].decode() for entry in found.entries if isinstance(entry, Row))
        return Names(keys, found.resume[_HEAD_BYTES:].hex() if found.resume is not None else None)

    async def _shows(self, range: KeyRange) -> bool:
        """Whether the range holds anything but delete markers."""
        start = range.start
        step = 1
        while True:
            page = await self._meta.scan(KeyRange(start, range.end), limit=step)
            for entry in page.entries:
                if isinstance(entry, Row) and not VersionRow.decode(entry.value).delete_marker:
                    return True
            if page.resume is None:
                return False
            start = page.resume
            step = min(step * 8, 1000)

    async def versions(
        self, bucket: OpenBucket, *, prefix: str, delimiter: str, after: tuple[str, str] | None, limit: int
    ) -> Listing:
        """Every version and delete marker, in the order of keys, newest first within a key.

        `after` is the key and version id that the last page ended with; an empty version id skips the whole key.
        """
        walk = _VersionWalk(self._meta, bucket, prefix, delimiter)
        if after is not None:
            await walk.skip(*after)
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        while len(objects) + len(prefixes) < limit:
            entry = await walk.next()
            if entry is None:
                return Listing(tuple(objects), tuple(prefixes), None)
            if isinstance(entry, str):
                prefixes.append(entry)
            else:
                objects.append(entry)
        more = await walk.next() is not None
        return Listing(tuple(objects), tuple(prefixes), "more" if more else None)


class _VersionWalk:
    """`O` rows in order, each followed by the `V` rows of its key."""

    def __init__(self, meta: Meta, bucket: OpenBucket, prefix: str, delimiter: str) -> None:
        self._meta = meta
        self._bucket = bucket
        self._base = object_row_key(bucket.id, prefix.encode())
        self._prefix = prefix
        self._fold = Fold(delimiter.encode(), len(self._base)) if delimiter else None
        self._delimiter = delimiter
        self._start: bytes | None = self._base
        self._ready: list[Row | Folded] = []
        self._older: list[ObjectInfo] = []
        self._older_start: bytes | None = None
        self._older_end: bytes | None = None

    async def skip(self, key: str, version: str) -> None:
        """Go on behind that version of that key, or behind the whole key when `version` is empty."""
        self._start = max(self._base, _behind(self._bucket, self._prefix, self._delimiter, key))
        if not version:
            return
        (row,) = await self._meta.get_many([object_row_key(self._bucket.id, key.encode())])
        if row is None:
            return
        current = VersionRow.decode(row.value)
        if version == "null":
            sequence = current.sequence if current.null else current.null_sequence
        else:
            sequence, _ = parse_version_id(version)
        if sequence:
            self._open_older(key.encode(), below=sequence)

    async def next(self) -> ObjectInfo | str | None:
        """A version, a folded prefix, or None at the end."""
        while True:
            if self._older:
                return self._older.pop(0)
            if self._older_start is not None:
                await self._read_older()
                continue
            if self._ready:
                entry = self._ready.pop(0)
                if isinstance(entry, Folded):
                    return entry.prefix[_HEAD_BYTES:].decode()
                key = entry.key[_HEAD_BYTES:]
                row = VersionRow.decode(entry.value)
                if row.sequence > 1:
                    self._open_older(key, below=row.sequence)
                return info(key.decode(), row, latest=True)
            if self._start is None:
                return None
            page = await self._meta.scan(KeyRange(self._start, prefix_end(self._base)), limit=250, fold=self._fold)
            self._ready = list(page.entries)
            self._start = page.resume

    def _open_older(self, key: bytes, *, below: int) -> None:
        self._older_start = version_row_key(self._bucket.id, key, below - 1)
        self._older_end = prefix_end(VERSIONS + self._bucket.id + escape(key))

    async def _read_older(self) -> None:
        assert self._older_start is not None
        page = await self._meta.scan(KeyRange(self._older_start, self._older_end), limit=250)
        for entry in page.entries:
            assert isinstance(entry, Row)
            key, _ = version_row_parts(entry.key)
            self._older.append(info(key.decode(), VersionRow.decode(entry.value), latest=False))
        self._older_start = page.resume


def _behind(bucket: OpenBucket, prefix: str, delimiter: str, after: str) -> bytes:
    """Where to go on behind `after`, which may be a key, no key, or a folded prefix."""
    if delimiter and after.startswith(prefix) and (cut := after.find(delimiter, len(prefix))) >= 0:
        folded = object_row_key(bucket.id, after[: cut + len(delimiter)].encode())
        return prefix_end(folded) or folded
    return object_row_key(bucket.id, after.encode()) + b"\0"


def _decode_resume(resume: str) -> bytes:
    try:
        return bytes.fromhex(resume)
    except ValueError:
        raise InvalidRequest("this is not a continuation that an earlier page gave") from None
