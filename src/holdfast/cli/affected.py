"""Which objects are hit when contents are: from the contents' ids back to names that people know."""

from collections.abc import AsyncIterator, Collection

from holdfast.cli.opening import OpenStore
from holdfast.core.ids import ContentId
from holdfast.core.ranges import KeyRange, prefix_range
from holdfast.meta.interface import Meta, Row
from holdfast.objects.rows import (
    BUCKET_ID_BYTES,
    BUCKETS,
    CONTENTS,
    OBJECTS,
    VERSIONS,
    BucketRow,
    ContentRow,
    VersionRow,
    version_row_parts,
)

PAGE_COUNT = 500


async def affected_objects(opened: OpenStore, contents: Collection[ContentId]) -> list[str]:
    """The objects and versions that need any of `contents`, as "bucket/key" or "bucket/key (version 3)"."""
    hit = await _with_composites(opened.meta, frozenset(contents))
    buckets = {
        BucketRow.decode(row.value).id: row.key[len(BUCKETS) :].decode() async for row in _rows(opened.meta, BUCKETS)
    }
    found: list[str] = []
    for table in (OBJECTS, VERSIONS):
        async for row in _rows(opened.meta, table):
            version = VersionRow.decode(row.value)
            if version.content not in hit:
                continue
            bucket = buckets.get(row.key[1 : 1 + BUCKET_ID_BYTES], "?")
            if table == OBJECTS:
                key, said = row.key[1 + BUCKET_ID_BYTES :], ""
            else:
                key, sequence = version_row_parts(row.key)
                said = f" (version {sequence})"
            found.append(f"{bucket}/{key.decode(errors='replace')}{said}")
    return found


async def _with_composites(meta: Meta, contents: frozenset[ContentId]) -> frozenset[bytes]:
    """With the contents that are made of these; a composite is made of simple ones, or of one that was recoded."""
    hit: set[bytes] = set(contents)
    grown = True
    while grown:
        before = len(hit)
        async for row in _rows(meta, CONTENTS):
            content = ContentRow.decode(row.value)
            if content.root is None and any(extent.content in hit for extent in content.extents):
                hit.add(row.key[len(CONTENTS) :])
        grown = len(hit) > before
    return frozenset(hit)


async def _rows(meta: Meta, table: bytes) -> AsyncIterator[Row]:
    whole = prefix_range(table)
    start: bytes | None = whole.start
    while start is not None:
        page = await meta.scan(KeyRange(start, whole.end), limit=PAGE_COUNT)
        for entry in page.entries:
            if isinstance(entry, Row):
                yield entry
        start = page.resume
