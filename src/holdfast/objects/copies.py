"""Copies of objects, and parts made of objects, by reference: the new rows name the contents that the source names.

No data is written. Inline bytes are copied with their row. The references are taken in the commit that makes the copy
visible; a source that was deleted or overwritten before that is looked up again, so a copy never names bytes that may
be collected.

A copy has the ETag and checksums that S3 would give it. Where the source's rows do not hold them (the source was put
in parts, a part is a range, another algorithm is asked for) its bytes are read once to compute them.
"""

import base64
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import dataclass

from holdfast.core.clock import Clock
from holdfast.core.errors import InvalidRequest, NotFound
from holdfast.core.ids import ContentId
from holdfast.core.ranges import ByteRange
from holdfast.objects.contents import Contents, cut
from holdfast.objects.digests import Digester
from holdfast.objects.errors import Contended
from holdfast.objects.model import (
    Body,
    Copied,
    CopiedPart,
    CopyOptions,
    CopySource,
    Digests,
    ObjectInfo,
    Part,
    PutOptions,
)
from holdfast.objects.publish import Publisher
from holdfast.objects.references import ContentGone, Prepared, References
from holdfast.objects.rows import Extent, PartRow, VersionRow
from holdfast.objects.uploads import PART_EXTENTS_MAX_COUNT, OpenUpload, Uploads
from holdfast.objects.versions import Draft, info

# Each round lost is a source that was replaced while it was copied.
ATTEMPTS_MAX_COUNT = 16

Find = Callable[[str, str, str | None], Awaitable[tuple[VersionRow, bool]]]
PutPart = Callable[[OpenUpload, int, Body, PutOptions], Awaitable[Part]]


@dataclass(frozen=True, slots=True)
class _Sums:
    """What a copy's bytes hash to: MD5 in hex, and checksums in base64 by algorithm."""

    md5: str
    checksums: Mapping[str, str]


class Copies:
    """Makes copies. `find` looks up a version's row, and says whether it is the newest; `put_part` stores bytes."""

    def __init__(
        self,
        find: Find,
        put_part: PutPart,
        contents: Contents,
        references: References,
        publisher: Publisher,
        uploads: Uploads,
        hashing: Executor,
        clock: Clock,
    ) -> None:
        self._find = find
        self._put_part = put_part
        self._contents = contents
        self._references = references
        self._publisher = publisher
        self._uploads = uploads
        self._hashing = hashing
        self._clock = clock

    async def copy_object(self, source: CopySource, bucket: str, key: bytes, options: CopyOptions) -> Copied:
        """As `Store.copy_object`."""
        for _ in range(ATTEMPTS_MAX_COUNT):
            row, found = await self._look_up(source)
            algorithms = [options.checksum] if options.checksum is not None else sorted(row.checksums)
            try:
                sums = await self._sums(row, None, algorithms)
            except NotFound:
                continue
            content = ContentId(row.content) if row.content is not None else None
            draft = Draft(
                size=row.size,
                etag=sums.md5,
                modified_ns=self._clock.now_ns(),
                headers=row.headers if options.headers is None else options.headers,
                user_metadata=row.user_metadata if options.user_metadata is None else options.user_metadata,
                checksums=sums.checksums,
                content=content,
                inline=row.inline,
                unique=self._publisher.unique(),
                tags=row.tags if options.tags is None else options.tags,
            )
            extra = Prepared(taken=[content] if content is not None else [])
            try:
                made = await self._publisher.put(bucket, key, draft, options.conditions, extra)
            except ContentGone:
                continue
            return Copied(info(key.decode(), made, latest=True), found)
        raise Contended("the source keeps changing while it is copied")

    async def copy_part(
        self, source: CopySource, wanted: ByteRange | None, upload: OpenUpload, number: int
    ) -> CopiedPart:
        """As `Store.copy_part`."""
        for _ in range(ATTEMPTS_MAX_COUNT):
            row, found = await self._look_up(source)
            length = row.size if wanted is None else wanted.length
            if wanted is not None and wanted.end > row.size:
                raise InvalidRequest(f"the object has {row.size} bytes")
            algorithms = sorted(upload.row.checksums)
            if row.content is None:
                inline = row.inline if wanted is None else row.inline[wanted.start : wanted.end]
                options = PutOptions(digests=tuple(algorithms), check=_checksums)
                return CopiedPart(await self._put_part(upload, number, inline, options), found)
            try:
                extents = await self._extents(ContentId(row.content), wanted or ByteRange(0, row.size))
                sums = await self._sums(row, wanted, algorithms)
            except NotFound:
                continue
            part = PartRow(PartRow.SHAPE, length, sums.md5, self._clock.now_ns(), dict(sums.checksums), None, extents)
            taken = [ContentId(extent.content) for extent in extents]
            try:
                made = await self._uploads.put_part(upload, number, part, Prepared(taken=taken))
            except ContentGone:
                continue
            return CopiedPart(made, found)
        raise Contended("the source keeps changing while it is copied")

    async def _look_up(self, source: CopySource) -> tuple[VersionRow, ObjectInfo]:
        """The source's row, which is that of an object, as whoever asks for the copy agrees to."""
        row, latest = await self._find(source.bucket, source.key, source.version)
        if row.delete_marker:
            raise InvalidRequest("the source of a copy may not be a delete marker, named by its version")
        found = info(source.key, row, latest=latest)
        if source.check is not None:
            source.check(found)
        return row, found

    async def _extents(self, content: ContentId, wanted: ByteRange) -> list[Extent]:
        """What a range of a content is made of: a composite's own extents, so that composites do not pile up."""
        _, row = await self._references.read(content)
        extents = cut(row.extents if row.root is None else [Extent(content, 0, row.size)], wanted)
        if len(extents) > PART_EXTENTS_MAX_COUNT:
            raise InvalidRequest(f"a part is made of at most {PART_EXTENTS_MAX_COUNT} pieces, not {len(extents)}")
        return extents

    async def _sums(self, row: VersionRow, wanted: ByteRange | None, algorithms: Iterable[str]) -> _Sums:
        """What the row says, where that is of these bytes as a whole; else the bytes are read. Raises NotFound."""
        whole = wanted is None or wanted.length == row.size
        known = {name: row.checksums.get(name, "-") for name in algorithms}
        if whole and "-" not in row.etag and not any("-" in value for value in known.values()):
            return _Sums(row.etag, known)
        missing = [name for name, value in known.items() if not whole or "-" in value]
        digester = Digester(["md5", *missing], self._hashing)
        if row.content is None:
            await digester.update(row.inline)
        else:
            read = self._contents.read(ContentId(row.content), wanted or ByteRange(0, row.size))
            async with aclosing(read) as blocks:
                async for block in blocks:
                    await digester.update(block)
        digests = digester.digests()
        return _Sums(digests.values["md5"].hex(), {**known, **_checksums(digests)})


def _checksums(digests: Digests) -> dict[str, str]:
    """All but the MD5, in base64."""
    return {name: base64.b64encode(value).decode("ascii") for name, value in digests.values.items() if name != "md5"}
