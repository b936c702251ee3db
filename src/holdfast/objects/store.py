"""The product's own API: what every gateway speaks to.

`Store` is a table of contents: each method takes names and values as `model.py` has them, checks the names, and hands
on to the module that does the work. It holds no state of its own.
"""

from asyncio import CancelledError
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import Executor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import msgspec

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import Ambiguous, HoldfastError, InvalidRequest, PreconditionFailed
from holdfast.core.ids import Buffer, ContentId
from holdfast.core.limits import LIST_PAGE_MAX_COUNT, MIB, PARTS_MAX_COUNT
from holdfast.core.ranges import ByteRange
from holdfast.meta.interface import Meta
from holdfast.objects.buckets import Buckets, OpenBucket
from holdfast.objects.buffers import BufferPool
from holdfast.objects.contents import Contents
from holdfast.objects.copies import Copies
from holdfast.objects.digests import Digester
from holdfast.objects.errors import (
    Contended,
    MarkedDeleted,
    NoSuchObject,
    NoSuchVersion,
    UploadsInFlight,
)
from holdfast.objects.ingest import INLINE_MAX_BYTES, Received, receive, receive_inline
from holdfast.objects.listing import Lister
from holdfast.objects.model import (
    NO_CONDITIONS,
    Body,
    Bucket,
    CompletedPart,
    Conditions,
    Copied,
    CopiedPart,
    CopyOptions,
    CopySource,
    Deleted,
    Listing,
    Names,
    NewObject,
    ObjectInfo,
    Part,
    PutOptions,
    Upload,
    UploadPage,
    Versioning,
    VersionName,
)
from holdfast.objects.names import encode_key
from holdfast.objects.publish import PUT_BATCH_MAX_COUNT, Publisher, Wanted
from holdfast.objects.references import References
from holdfast.objects.rows import PartRow, VersionRow, bucket_row_key, object_row_key
from holdfast.objects.sessions import Sessions
from holdfast.objects.tags import BUCKET_TAGS_MAX_COUNT, OBJECT_TAGS_MAX_COUNT, check_tags
from holdfast.objects.uploads import OpenUpload, Uploads
from holdfast.objects.versions import Draft, info, is_of_parts, opaque_etag

# Another round is needed only when an upload was started in the middle of the one before.
DELETE_ATTEMPTS_MAX_COUNT = 16

# Buffers of all uploads of a process that are filling, hashed or sealed: four long uploads at full speed, or a buffer
# of the least length each for twelve times as many. What sealing and coding make of them is bounded by
# `tree.threads`, and ADR 16 adds it all up.
BUFFERS_BYTES = 48 * MIB


class ObjectReader:
    """An object that was looked up: what it is, and its bytes."""

    def __init__(self, info: ObjectInfo, inline: bytes, content: ContentId | None, contents: Contents) -> None:
        self.info = info
        self._inline = inline
        self._content = content
        self._contents = contents

    async def read(self, range: ByteRange | None = None) -> AsyncGenerator[Buffer, None]:
        """The bytes of a range, or all, in order, each checked. Raises InvalidRequest past the end, and whatever the
        drives raise; what was yielded before an error is right."""
        start, end = (range.start, range.end) if range is not None else (0, self.info.size)
        if end > self.info.size:
            raise InvalidRequest(f"the object has {self.info.size} bytes")
        if start == end:
            return
        if self._content is None:
            yield memoryview(self._inline)[start:end]
            return
        async with aclosing(self._contents.read(self._content, ByteRange(start, end))) as blocks:
            async for block in blocks:
                yield block


@dataclass(frozen=True, slots=True)
class StoreParts:
    """What the composition root hands over."""

    meta: Meta
    contents: Contents
    sessions: Sessions
    clock: Clock
    randomness: Randomness
    hashing: Executor
    """Threads for MD5 and its like."""
    block_bytes: int
    """Length of the first blocks of a content; `objects.ingest` says when they grow."""


class Store:
    """Buckets, objects, versions, uploads."""

    def __init__(self, parts: StoreParts) -> None:
        self._meta = parts.meta
        self._contents = parts.contents
        self._sessions = parts.sessions
        self._clock = parts.clock
        self._hashing = parts.hashing
        self._pool = BufferPool(parts.block_bytes, BUFFERS_BYTES)
        self._buckets = Buckets(parts.meta, parts.clock, parts.randomness)
        self._references = references = References(parts.meta, parts.clock)
        self._publisher = Publisher(parts.meta, self._buckets, references, parts.clock, parts.randomness)
        self._lister = Lister(parts.meta)
        self._uploads = Uploads(
            parts.meta, self._buckets, references, self._publisher, parts.sessions, parts.clock, parts.randomness
        )
        self._copies = Copies(
            self._find,
            self._put_part,
            parts.contents,
            references,
            self._publisher,
            self._uploads,
            parts.hashing,
            parts.clock,
        )

    # Buckets

    async def create_bucket(self, name: str, *, region: str = "", versioning: Versioning = Versioning.OFF) -> Bucket:
        """Raises InvalidName, AlreadyExists."""
        return await self._buckets.create(name, region, versioning)

    async def bucket(self, name: str) -> Bucket:
        """Raises NoSuchBucket."""
        return (await self._buckets.read(name)).public()

    async def delete_bucket(self, name: str) -> None:
        """Uploads in flight do not keep a bucket: they are aborted with it. Raises NoSuchBucket, BucketNotEmpty."""
        for _ in range(DELETE_ATTEMPTS_MAX_COUNT):
            try:
                return await self._buckets.delete(name)
            except UploadsInFlight:
                await self._uploads.abort_all(name)
        raise Contended(f"uploads into the bucket {name} keep being started")

    async def list_buckets(self, *, after: str = "", prefix: str = "", limit: int = 1000) -> list[Bucket]:
        """In the order of names, from behind `after`."""
        return await self._buckets.list(after, prefix, limit)

    async def set_versioning(self, bucket: str, versioning: Versioning) -> None:
        """Raises NoSuchBucket, InvalidRequest."""
        await self._buckets.set_versioning(bucket, versioning)

    async def set_bucket_tags(self, bucket: str, tags: Sequence[tuple[str, str]]) -> None:
        """Instead of those it has. Raises NoSuchBucket, InvalidTag."""
        await self._buckets.set_tags(bucket, check_tags(tags, BUCKET_TAGS_MAX_COUNT))

    # Objects

    async def put_object(self, bucket: str, key: str, body: Body, options: PutOptions) -> ObjectInfo:
        """Store a body under a key; on return it is durable and every process reads it.

        Raises NoSuchBucket, ConditionFailed, NoSuchObject (If-Match), IncompleteBody, InvalidName, InvalidRequest,
        Unavailable, and whatever `options.check` raises. Then nothing of it can be seen.
        """
        encoded = encode_key(key)
        await self._buckets.open(bucket)
        received = await self._receive(body, options)
        draft = self._draft(received, options)
        async with self._discarding(received):
            row = await self._publisher.put(bucket, encoded, draft, options.conditions, received.prepared)
        return info(key, row, latest=True)

    async def put_objects(self, bucket: str, objects: Sequence[NewObject]) -> list[ObjectInfo | HoldfastError]:
        """As `put_object` for each, in their order, in few commits: many times cheaper for bodies of up to 8 KiB.

        On return all are durable but those with an error in their place. Some hundred become visible at a time; each
        has its own conditions, and of those of one key the last is the newest. Raises NoSuchBucket.
        """
        await self._buckets.open(bucket)
        made: dict[int, ObjectInfo | HoldfastError] = {}
        batch: dict[int, Wanted] = {}
        for place, new in enumerate(objects):
            if len(new.body) > INLINE_MAX_BYTES:
                made |= await self._put_batch(bucket, objects, batch)
                made[place] = await self._put_alone(bucket, new)
                continue
            try:
                received = receive_inline(new.body, new.options, self._digester(new.options))
                batch[place] = Wanted(encode_key(new.key), self._draft(received, new.options), new.options.conditions)
            except HoldfastError as error:
                made[place] = error
            if len(batch) == PUT_BATCH_MAX_COUNT:
                made |= await self._put_batch(bucket, objects, batch)
        made |= await self._put_batch(bucket, objects, batch)
        return [made[place] for place in range(len(objects))]

    async def _put_batch(
        self, bucket: str, objects: Sequence[NewObject], batch: dict[int, Wanted]
    ) -> dict[int, ObjectInfo | HoldfastError]:
        """Publish what was gathered, by its places among `objects`."""
        places, wanted = list(batch), list(batch.values())
        batch.clear()
        rows = await self._publisher.put_many(bucket, wanted) if wanted else []
        return {
            place: row if isinstance(row, HoldfastError) else info(objects[place].key, row, latest=True)
            for place, row in zip(places, rows, strict=True)
        }

    async def _put_alone(self, bucket: str, new: NewObject) -> ObjectInfo | HoldfastError:
        try:
            return await self.put_object(bucket, new.key, new.body, new.options)
        except HoldfastError as error:
            return error

    async def object_info(self, bucket: str, key: str, version: VersionName | None = None) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchObject, NoSuchVersion, InvalidRequest."""
        row, latest = await self._find(bucket, key, version)
        return await self._info(key, row, latest=latest)

    async def open_object(self, bucket: str, key: str, version: VersionName | None = None) -> ObjectReader:
        """Raises NoSuchBucket, NoSuchObject, NoSuchVersion, InvalidRequest.

        What is read is the version that was newest in this moment, even when it is replaced while it is read.
        """
        row, latest = await self._find(bucket, key, version)
        found = await self._info(key, row, latest=latest)
        content = ContentId(row.content) if row.content is not None else None
        return ObjectReader(found, row.inline, content, self._contents)

    async def copy_object(self, source: CopySource, bucket: str, key: str, options: CopyOptions) -> Copied:
        """Put a version on top of a key that has the bytes of another. No data is written.

        Raises NoSuchBucket, NoSuchObject, NoSuchVersion, InvalidRequest, ConditionFailed, and whatever `source.check`
        raises.
        """
        return await self._copies.copy_object(source, bucket, encode_key(key), options)

    async def delete_object(
        self, bucket: str, key: str, version: VersionName | None = None, conditions: Conditions = NO_CONDITIONS
    ) -> Deleted:
        """Raises NoSuchBucket, ConditionFailed, NoSuchObject (If-Match), InvalidRequest. A missing key is no error."""
        return await self._publisher.delete(bucket, encode_key(key), version, conditions)

    async def set_tags(self, bucket: str, key: str, version: str | None, tags: Sequence[tuple[str, str]]) -> ObjectInfo:
        """Give a version, the newest unless one is named, these tags instead of those it has.

        Raises NoSuchBucket, NoSuchObject, NoSuchVersion, InvalidTag, InvalidRequest.
        """
        checked = check_tags(tags, OBJECT_TAGS_MAX_COUNT)
        row = await self._publisher.set_tags(bucket, encode_key(key), version, checked)
        return info(key, row, latest=version is None)

    async def delete_objects(
        self, bucket: str, keys: Sequence[tuple[str, str | None, Conditions]]
    ) -> list[Deleted | HoldfastError]:
        """Key, version and conditions of each; as `delete_object`, in the order of `keys`.

        An error in an answer's place concerns that key alone. Raises NoSuchBucket.
        """
        encoded: list[tuple[bytes, str | None, Conditions]] = []
        refused: dict[int, HoldfastError] = {}
        for position, (key, version, conditions) in enumerate(keys):
            try:
                encoded.append((encode_key(key), version, conditions))
            except HoldfastError as error:
                refused[position] = error
        answers = iter(await self._publisher.delete_many(bucket, encoded))
        return [refused[position] if position in refused else next(answers) for position in range(len(keys))]

    async def list_objects(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: str = "",
        resume: str | None = None,
        limit: int = LIST_PAGE_MAX_COUNT,
    ) -> Listing:
        """A page of newest versions in key order, from behind the key `after` or where `resume` says."""
        opened = await self._buckets.read(bucket)
        return await self._lister.objects(
            opened, prefix=prefix, delimiter=delimiter, after=after, resume=resume, limit=limit
        )

    async def list_names(
        self,
        bucket: str,
        *,
        prefix: str = "",
        after: str = "",
        resume: str | None = None,
        limit: int = LIST_PAGE_MAX_COUNT,
    ) -> Names:
        """A page of the keys of newest versions, as `list_objects` has them, for a tenth of its time where the bucket
        never kept versions: nothing is opened there. Elsewhere rows are, to tell delete markers."""
        opened = await self._buckets.read(bucket)
        return await self._lister.names(opened, prefix=prefix, after=after, resume=resume, limit=limit)

    async def list_versions(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] | None = None,
        limit: int = LIST_PAGE_MAX_COUNT,
    ) -> Listing:
        """A page of versions and delete markers, keys in order, newest first, from behind (key, version)."""
        opened = await self._buckets.read(bucket)
        return await self._lister.versions(opened, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

    # Multipart uploads

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> Upload:
        """Raises NoSuchBucket, InvalidName."""
        return await self._uploads.create(bucket, encode_key(key), options)

    async def upload(self, bucket: str, key: str, upload_id: str) -> Upload:
        """An upload in flight. Raises NoSuchBucket, NoSuchUpload."""
        opened = await self._uploads.open(bucket, encode_key(key), upload_id)
        checksum = next(iter(opened.row.checksums.items()), None)
        return Upload(key, upload_id, opened.row.created_ns, checksum)

    async def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, body: Body, options: PutOptions
    ) -> Part:
        """Store a part; one of the same number is replaced. Raises as `put_object`, and NoSuchUpload."""
        return await self._put_part(await self._open_part(bucket, key, upload_id, number), number, body, options)

    async def copy_part(
        self, source: CopySource, wanted: ByteRange | None, bucket: str, key: str, upload_id: str, number: int
    ) -> CopiedPart:
        """Make a part of a range of an object, or of all of it. No data is written, but for what is kept inline.

        Raises as `put_part` and as `copy_object`.
        """
        upload = await self._open_part(bucket, key, upload_id, number)
        return await self._copies.copy_part(source, wanted, upload, number)

    async def list_parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[Part], bool]:
        """Parts with numbers above `after`, and whether there are more. Raises NoSuchBucket, NoSuchUpload."""
        upload = await self._uploads.open(bucket, encode_key(key), upload_id)
        parts = await self._uploads.parts(upload.id, after=after, limit=limit + 1)
        return [part.public() for part in parts[:limit]], len(parts) > limit

    async def list_uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadPage:
        """Uploads in flight from behind (key, upload id). Raises NoSuchBucket."""
        return await self._uploads.list(bucket, prefix=prefix, delimiter=delimiter, after=after, limit=limit)

    async def complete_upload(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[CompletedPart], options: PutOptions
    ) -> ObjectInfo:
        """Make the object of the parts. Asked again with the same parts, it answers the same.

        Raises NoSuchBucket, NoSuchUpload, InvalidPart, InvalidPartOrder, EntityTooSmall, ConditionFailed.
        """
        return await self._uploads.complete(bucket, encode_key(key), upload_id, parts, options)

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None:
        """Raises NoSuchBucket, NoSuchUpload."""
        await self._uploads.abort(await self._uploads.open(bucket, encode_key(key), upload_id))

    async def abort_uploads(self, bucket: str, *, before_ns: int) -> int:
        """Abort the uploads that were started before a time and neither completed nor aborted; how many there were.

        Raises NoSuchBucket.
        """
        return await self._uploads.abort_all(bucket, before_ns=before_ns)

    async def forget_completed(self, *, before_ns: int) -> int:
        """Uploads that were completed before a time can be completed again no more; how many there were. Parts that
        a completion left out are released, where whoever completed was stopped before that."""
        return await self._uploads.forget_completed(before_ns)

    # What several of them share

    async def _open_part(self, bucket: str, key: str, upload_id: str, number: int) -> OpenUpload:
        if not 1 <= number <= PARTS_MAX_COUNT:
            raise InvalidRequest(f"part numbers run from 1 to {PARTS_MAX_COUNT}")
        return await self._uploads.open(bucket, encode_key(key), upload_id)

    async def _put_part(self, upload: OpenUpload, number: int, body: Body, options: PutOptions) -> Part:
        received = await self._receive(body, msgspec.structs.replace(options, md5=True), inline_max=0)
        row = PartRow(
            PartRow.SHAPE,
            received.digests.size,
            received.digests.values["md5"].hex(),
            self._clock.now_ns(),
            received.checksums,
            received.content,
        )
        async with self._discarding(received):
            return await self._uploads.put_part(upload, number, row, received.prepared)

    async def _receive(self, body: Body, options: PutOptions, *, inline_max: int = INLINE_MAX_BYTES) -> Received:
        digester = self._digester(options)
        return await receive(body, options, digester, self._pool, self._contents.open_writer, inline_max=inline_max)

    def _digester(self, options: PutOptions) -> Digester:
        return Digester(("md5", *options.digests) if options.md5 else options.digests, self._hashing)

    def _draft(self, received: Received, options: PutOptions) -> Draft:
        unique = self._publisher.unique()
        return Draft(
            size=received.digests.size,
            etag=received.digests.values["md5"].hex() if options.md5 else opaque_etag(unique),
            modified_ns=self._clock.now_ns(),
            headers=options.headers,
            user_metadata=options.user_metadata,
            checksums=received.checksums,
            content=received.content,
            inline=received.inline,
            unique=unique,
            tags=options.tags,
        )

    @asynccontextmanager
    async def _discarding(self, received: Received) -> AsyncIterator[None]:
        """Around a publish: when it failed, the blocks are given up, unless they were published after all. Nobody else
        would for as long as this process, and so its session, lives. What is unknown is left as it is."""
        try:
            yield
        except (HoldfastError, CancelledError) as error:
            if received.content is not None and not isinstance(error, Ambiguous):
                await self._contents.discard(received.content, received.prepared)
            if isinstance(error, PreconditionFailed):
                raise self._contents.why_unpublished(error) from None
            raise

    async def _find(self, bucket: str, key: str, version: VersionName | None) -> tuple[VersionRow, bool]:
        """The row of a version, and whether it is the newest. Bucket and key are seen in the same moment."""
        encoded = encode_key(key)
        opened: OpenBucket | None = await self._buckets.open(bucket)
        while opened is not None:
            looked_in = opened
            rows = await self._meta.get_many([bucket_row_key(bucket), object_row_key(opened.id, encoded)])
            opened = await self._buckets.current(opened, rows[0])
            if opened is not None:
                continue
            if rows[1] is None:
                if version is not None:
                    raise NoSuchVersion("the key has no such version")
                raise NoSuchObject("the key has no version")
            current = VersionRow.decode(rows[1].value)
            if version is not None:
                row = await self._publisher.find(looked_in, encoded, current, version)
                return row, row.sequence == current.sequence
            if current.delete_marker:
                raise MarkedDeleted(info(key, current, latest=True))
            return current, True
        raise AssertionError("unreachable: a bucket is current or is looked up again")

    async def _info(self, key: str, row: VersionRow, *, latest: bool) -> ObjectInfo:
        if row.content is None or not is_of_parts(row.etag):
            return info(key, row, latest=latest)
        _, content = await self._references.read(ContentId(row.content))
        return info(key, row, latest=latest, parts=tuple(content.parts), part_checksums=content.part_checksums)
