"""Multipart uploads: rows of uploads and parts, and their completion.

Each part is a content of its own with one reference, held by its `P` row. Complete opens and rewrites no data: it
makes a composite content that lists the parts' contents in order and takes over their references, puts the version
on top of its key, and removes the upload, all in one commit. A `completed` row remembers it for a while, so that a
client whose connection broke may ask again and is answered the same.

Parts that were uploaded and not chosen can be more than one commit may change. They are released behind the one that
completes; until they are, the `completed` row says so, and upkeep finds it when whoever completed was killed.
"""

import hashlib
import logging
from collections.abc import Sequence
from itertools import pairwise

import msgspec
from blake3 import blake3
from msgspec import Struct

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import HoldfastError, InvalidRequest, NotFound, PreconditionFailed
from holdfast.core.ids import ContentId, new_token
from holdfast.core.limits import OBJECT_MAX_BYTES, PART_MIN_BYTES, PARTS_MAX_COUNT
from holdfast.core.ranges import KeyRange, prefix_end, prefix_range
from holdfast.meta.interface import Change, Delete, Expectation, HasToken, IsEmpty, Meta, Put, Row
from holdfast.objects.buckets import Buckets, OpenBucket
from holdfast.objects.errors import (
    Contended,
    EntityTooSmall,
    InvalidPart,
    InvalidPartOrder,
    NoSuchUpload,
)
from holdfast.objects.model import CompletedPart, Digests, ObjectInfo, Part, PutOptions, Upload, UploadPage
from holdfast.objects.publish import ATTEMPTS_MAX_COUNT, Publisher
from holdfast.objects.references import Overtaken, Prepared, References
from holdfast.objects.rows import (
    BUCKET_ID_BYTES,
    COMPLETED,
    CompletedRow,
    ContentRow,
    Extent,
    PartRow,
    UploadRow,
    VersionRow,
    completed_row_key,
    content_row_key,
    escape,
    object_row_key,
    part_row_key,
    parts_prefix,
    unescape,
    upload_row_key,
    uploads_prefix,
)
from holdfast.objects.sessions import Session, Sessions
from holdfast.objects.versions import Draft, info

UPLOAD_ID_BYTES = 16
_SCAN_COUNT = 1000

# Rows that one commit that releases parts may change, safely below what a commit may hold.
_RELEASE_CHANGES_MAX_COUNT = 12_000

# 5 GiB of an object whose parts are as short as S3 allows are 1,024; and a part must fit a commit that releases it.
PART_EXTENTS_MAX_COUNT = 4096

# An extent takes up to 37 bytes of the composite's row, which also holds the parts' sizes and checksums.
EXTENTS_MAX_COUNT = 32_768

_LOGGER = logging.getLogger(__name__)


class OpenUpload(Struct, frozen=True):
    bucket: OpenBucket
    key: bytes
    id: bytes
    row: UploadRow
    expectation: HasToken


class StoredPart(Struct, frozen=True):
    number: int
    row: PartRow
    expectation: HasToken

    def public(self) -> Part:
        return Part(self.number, self.row.size, self.row.etag, self.row.modified_ns, self.row.checksums)


class Uploads:
    """The `U` and `P` rows."""

    def __init__(
        self,
        meta: Meta,
        buckets: Buckets,
        references: References,
        publisher: Publisher,
        sessions: Sessions,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._meta = meta
        self._buckets = buckets
        self._references = references
        self._publisher = publisher
        self._sessions = sessions
        self._clock = clock
        self._randomness = randomness

    async def create(self, bucket_name: str, key: bytes, options: PutOptions) -> Upload:
        """Raises NoSuchBucket, Contended."""
        upload = self._randomness.bytes(UPLOAD_ID_BYTES)
        row = UploadRow(
            UploadRow.SHAPE,
            key.decode(),
            self._clock.now_ns(),
            dict(options.headers),
            dict(options.user_metadata),
            dict([options.checksum] if options.checksum is not None else []),
            dict(options.tags),
        )
        for _ in range(ATTEMPTS_MAX_COUNT):
            bucket = await self._buckets.open(bucket_name)
            change = Put(upload_row_key(bucket.id, key, upload), row.encode())
            try:
                await self._meta.commit([change], [bucket.expectation], token=new_token(self._randomness))
            except PreconditionFailed:
                self._buckets.forget(bucket_name)
                continue
            return Upload(row.key, upload.hex(), row.created_ns)
        raise Contended("the bucket keeps changing")

    async def open(self, bucket_name: str, key: bytes, upload_id: str) -> OpenUpload:
        """Raises NoSuchBucket, NoSuchUpload."""
        bucket = await self._buckets.read(bucket_name)
        upload = parse_upload_id(upload_id)
        row_key = upload_row_key(bucket.id, key, upload)
        try:
            row = await self._meta.get(row_key)
        except NotFound:
            raise NoSuchUpload("no upload in flight has that id") from None
        return OpenUpload(bucket, key, upload, UploadRow.decode(row.value), HasToken(row_key, row.token))

    async def put_part(self, upload: OpenUpload, number: int, row: PartRow, extra: Prepared) -> Part:
        """File a part, replacing one of the same number. Raises NoSuchUpload when the upload ended meanwhile,
        ContentGone (of `extra.taken`), and PreconditionFailed when an expectation of `extra` does not hold, with its
        position there."""
        row_key = part_row_key(upload.id, number)
        for _ in range(ATTEMPTS_MAX_COUNT):
            (old,) = await self._meta.get_many([row_key])
            dropped: list[ContentId] = []
            own: list[Expectation] = [upload.expectation]
            if old is None:
                own.append(IsEmpty(KeyRange(row_key, row_key + b"\0")))
            else:
                own.append(HasToken(row_key, old.token))
                dropped = _named(PartRow.decode(old.value))
            try:
                released = await self._references.move(extra.taken, dropped)
            except Overtaken:
                continue
            own += released.expecting
            try:
                await self._meta.commit(
                    [Put(row_key, row.encode()), *released.changes, *extra.changes],
                    [*own, *extra.expecting],
                    token=new_token(self._randomness),
                )
            except PreconditionFailed as error:
                if 0 in error.failed:
                    raise NoSuchUpload("the upload was completed or aborted meanwhile") from None
                foreign = tuple(position - len(own) for position in error.failed if position >= len(own))
                if foreign:
                    raise PreconditionFailed("what this part relied on is no longer so", foreign) from None
                continue
            return Part(number, row.size, row.etag, row.modified_ns, row.checksums)
        raise Contended("too many writers of this part at once")

    async def parts(self, upload: bytes, *, after: int = 0, limit: int = PARTS_MAX_COUNT) -> list[StoredPart]:
        """Stored parts of the upload of that id with numbers above `after`, in their order."""
        found: list[StoredPart] = []
        start: bytes | None = part_row_key(upload, after + 1)
        end = prefix_end(parts_prefix(upload))
        while start is not None and len(found) < limit:
            page = await self._meta.scan(KeyRange(start, end), limit=min(_SCAN_COUNT, limit - len(found)))
            for entry in page.entries:
                assert isinstance(entry, Row)
                number = int.from_bytes(entry.key[-2:], "big")
                found.append(StoredPart(number, PartRow.decode(entry.value), HasToken(entry.key, entry.token)))
            start = page.resume
        return found

    async def list(
        self, bucket_name: str, *, prefix: str, delimiter: str, after: tuple[str, str], limit: int
    ) -> UploadPage:
        """Uploads in flight in the order of keys, those of one key in the order of ids."""
        bucket = await self._buckets.read(bucket_name)
        head = uploads_prefix(bucket.id)
        base = head + _escaped_prefix(prefix)
        start = base
        if folded := _folded(after[0], prefix, delimiter):
            start = _behind(head + _escaped_prefix(folded))
        elif after[0]:
            marker = head + escape(after[0].encode())
            start = marker + parse_upload_id(after[1]) + b"\0" if after[1] else _behind(marker)
        start = max(base, start)
        uploads: list[Upload] = []
        prefixes: list[str] = []
        last = ("", "")
        at: bytes | None = start
        while at is not None:
            page = await self._meta.scan(KeyRange(at, prefix_end(base)), limit=limit + 1)
            at = page.resume
            for entry in page.entries:
                assert isinstance(entry, Row)
                if len(uploads) + len(prefixes) == limit:
                    return UploadPage(tuple(uploads), tuple(prefixes), last)
                key = unescape(entry.key[1 + BUCKET_ID_BYTES :])[0].decode()
                # Folded here and not by the engine, which would take the upload's id for a part of the key.
                if folded := _folded(key, prefix, delimiter):
                    last = (folded, "")
                    prefixes.append(folded)
                    at = _behind(head + _escaped_prefix(folded))
                    break
                last = (key, entry.key[-UPLOAD_ID_BYTES:].hex())
                uploads.append(Upload(key, last[1], UploadRow.decode(entry.value).created_ns))
        return UploadPage(tuple(uploads), tuple(prefixes), None)

    async def abort(self, upload: OpenUpload) -> None:
        """Remove the upload and release its parts. Raises NoSuchUpload when it ended meanwhile."""
        await self._release_parts(upload.id, upload.expectation, Delete(upload.expectation.key))

    async def _release_parts(self, upload: bytes, owner: HasToken, end: Change) -> None:
        """Release every part of the upload of that id, in commits of many; `end`, in the last, is the end of the row
        that stands for them. Raises NoSuchUpload when that row is another by then."""
        for _ in range(ATTEMPTS_MAX_COUNT):
            *first, last = _batches(await self.parts(upload))
            for batch in first:
                if not await self._remove_parts(owner, batch, [], []):
                    break
            else:
                # A part that was filed since would be left behind without its upload.
                if await self._remove_parts(owner, last, [end], _nothing_between(upload, last)):
                    return
        raise Contended("parts keep arriving for this upload")

    async def _remove_parts(
        self, owner: HasToken, parts: Sequence[StoredPart], changes: Sequence[Change], expecting: Sequence[IsEmpty]
    ) -> bool:
        """Whether the commit went through. Raises NoSuchUpload when the owner's row is another by then."""
        try:
            released = await self._references.move(dropped=_contents(parts))
            await self._meta.commit(
                [*changes, *(Delete(part.expectation.key) for part in parts), *released.changes],
                [owner, *(part.expectation for part in parts), *expecting, *released.expecting],
                token=new_token(self._randomness),
            )
        except Overtaken:
            return False
        except PreconditionFailed as error:
            if 0 in error.failed:
                raise NoSuchUpload("the upload was completed or aborted meanwhile") from None
            return False
        return True

    async def abort_all(self, bucket_name: str, *, before_ns: int | None = None) -> int:
        """Abort what is in flight in a bucket now, or of that what was started before a time; how many there were.

        Raises NoSuchBucket.
        """
        after = ("", "")
        aborted = 0
        while True:
            page = await self.list(bucket_name, prefix="", delimiter="", after=after, limit=_SCAN_COUNT)
            for listed in page.uploads:
                if before_ns is not None and listed.created_ns >= before_ns:
                    continue
                try:
                    await self.abort(await self.open(bucket_name, listed.key.encode(), listed.id))
                except NoSuchUpload:
                    continue
                aborted += 1
            if page.resume is None:
                return aborted
            after = page.resume

    async def forget_completed(self, before_ns: int) -> int:
        """Drop what remembers uploads that were completed before a time; how many there were. Parts that any of them
        left out, and whoever completed it could not release, are released."""
        whole = prefix_range(COMPLETED)
        start: bytes | None = whole.start
        forgotten = 0
        while start is not None:
            page = await self._meta.scan(KeyRange(start, whole.end), limit=_SCAN_COUNT)
            old: list[Change] = []
            for row in page.entries:
                assert isinstance(row, Row)
                done = CompletedRow.decode(row.value)
                if done.left_out and not await self._release_left_out(row.key):
                    continue
                if done.completed_ns < before_ns:
                    old.append(Delete(row.key))
            if old:
                await self._meta.commit(old, token=new_token(self._randomness))
            forgotten += len(old)
            start = page.resume
        return forgotten

    async def complete(
        self, bucket_name: str, key: bytes, upload_id: str, wanted: Sequence[CompletedPart], options: PutOptions
    ) -> ObjectInfo:
        """Raises NoSuchBucket, NoSuchUpload, InvalidPart, InvalidPartOrder, EntityTooSmall, ConditionFailed, and
        whatever `options.check` raises, which is called with the checksums of no body."""
        for _ in range(ATTEMPTS_MAX_COUNT):
            try:
                upload = await self.open(bucket_name, key, upload_id)
            except NoSuchUpload:
                return await self._completed_before(bucket_name, key, upload_id, wanted)
            parts = await self.parts(upload.id)
            chosen = _choose(parts, wanted)
            left_out = len(chosen) < len(parts)
            try:
                row = await self._compose(upload, chosen, wanted, options, left_out=left_out)
            except Overtaken:
                continue
            if left_out:
                await self._release_left_out(completed_row_key(upload.bucket.id, key, upload.id))
            sizes = tuple(part.row.size for part in chosen) if row.content is not None else ()
            return info(key.decode(), row, latest=True, parts=sizes, part_checksums=_part_checksums(chosen))
        raise Contended("parts of this upload keep changing while it is completed")

    async def _compose(
        self,
        upload: OpenUpload,
        chosen: Sequence[StoredPart],
        wanted: Sequence[CompletedPart],
        options: PutOptions,
        *,
        left_out: bool,
    ) -> VersionRow:
        """One attempt. Raises Overtaken when the upload or its parts changed meanwhile."""
        size = sum(part.row.size for part in chosen)
        if size > OBJECT_MAX_BYTES:
            raise InvalidRequest(f"an object has at most {OBJECT_MAX_BYTES} bytes")
        session = await self._sessions.current()
        composite = self._sessions.new_content(session) if size else None
        draft = Draft(
            size=size,
            etag=multipart_etag([part.row.etag for part in chosen]),
            modified_ns=self._clock.now_ns(),
            headers=upload.row.headers,
            user_metadata=upload.row.user_metadata,
            checksums=dict(options.check(Digests(size, {}))) if options.check is not None else {},
            content=composite,
            inline=b"",
            unique=self._publisher.unique(),
            tags=upload.row.tags,
        )
        extra = _replace_upload(upload, chosen, composite, draft, session)
        done = CompletedRow(
            CompletedRow.SHAPE, draft.unique, draft.etag, _fingerprint(wanted), draft.modified_ns, left_out
        )
        extra.changes.append(Put(completed_row_key(upload.bucket.id, upload.key, upload.id), done.encode()))
        if not left_out:
            # A part that was filed since would be left behind, and nobody would know of it.
            extra.expecting += _nothing_between(upload.id, chosen)
        try:
            return await self._publisher.put(upload.bucket.name, upload.key, draft, options.conditions, extra)
        except PreconditionFailed as error:
            if not error.failed:
                raise
            if session.alive in [extra.expecting[position] for position in error.failed]:
                self._sessions.expired()
            raise Overtaken("the upload changed while it was completed") from None

    async def _release_left_out(self, row_key: bytes) -> bool:
        """Release the parts that an upload was completed without; `row_key` is that of its `completed` row. Whether
        that row says that none is left. What fails is no failure of the completion, and upkeep tries again."""
        try:
            row = await self._meta.get(row_key)
            done = CompletedRow.decode(row.value)
            if done.left_out:
                told = Put(row_key, msgspec.structs.replace(done, left_out=False).encode())
                await self._release_parts(row_key[-UPLOAD_ID_BYTES:], HasToken(row_key, row.token), told)
        except HoldfastError as error:
            _LOGGER.info("parts that an upload was completed without are not released yet: %s", error)
            return False
        return True

    async def _completed_before(
        self, bucket_name: str, key: bytes, upload_id: str, wanted: Sequence[CompletedPart]
    ) -> ObjectInfo:
        """The answer to a Complete that is asked again. Raises NoSuchUpload unless it is the very same request and
        the version that it made is still the newest."""
        bucket = await self._buckets.read(bucket_name)
        remembered_key = completed_row_key(bucket.id, key, parse_upload_id(upload_id))
        remembered, current = await self._meta.get_many([remembered_key, object_row_key(bucket.id, key)])
        if remembered is not None and current is not None:
            done = CompletedRow.decode(remembered.value)
            row = VersionRow.decode(current.value)
            if done.parts == _fingerprint(wanted) and done.unique == row.unique:
                if done.left_out:
                    await self._release_left_out(remembered_key)
                return info(key.decode(), row, latest=True)
        raise NoSuchUpload("no upload in flight has that id")


def parse_upload_id(upload_id: str) -> bytes:
    """Raises NoSuchUpload for what this store never gave out."""
    try:
        upload = bytes.fromhex(upload_id)
    except ValueError:
        upload = b""
    if len(upload) != UPLOAD_ID_BYTES:
        raise NoSuchUpload("no upload in flight has that id")
    return upload


def _folded(key: str, prefix: str, delimiter: str) -> str:
    """What stands for the key in a listing that folds; "" for itself."""
    cut = key.find(delimiter, len(prefix)) if delimiter and key.startswith(prefix) else -1
    return key[: cut + len(delimiter)] if cut >= 0 else ""


def _escaped_prefix(prefix: str) -> bytes:
    """What the escaped form of every key with that prefix begins with."""
    return escape(prefix.encode()).removesuffix(escape(b""))


def _behind(row_key: bytes) -> bytes:
    """Behind every row whose key begins so."""
    end = prefix_end(row_key)
    assert end is not None, "a table's letter is no FF"
    return end


def multipart_etag(etags: Sequence[str]) -> str:
    """MD5 of the parts' MD5s, a hyphen and how many: as S3 does it."""
    joined = b"".join(bytes.fromhex(etag) for etag in etags)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(etags)}"


def _choose(parts: Sequence[StoredPart], wanted: Sequence[CompletedPart]) -> list[StoredPart]:
    if not wanted:
        raise InvalidRequest("an upload is completed from at least one part")
    if len(wanted) > PARTS_MAX_COUNT:
        raise InvalidRequest(f"an upload has at most {PARTS_MAX_COUNT} parts")
    if any(later.number <= earlier.number for earlier, later in pairwise(wanted)):
        raise InvalidPartOrder("part numbers must rise")
    stored = {part.number: part for part in parts}
    chosen: list[StoredPart] = []
    for claim in wanted:
        part = stored.get(claim.number)
        if part is None or part.row.etag != claim.etag.strip('"').lower():
            raise InvalidPart(f"part {claim.number} was not uploaded, or not with that ETag")
        for name, value in claim.checksums.items():
            if name in part.row.checksums and part.row.checksums[name] != value:
                raise InvalidPart(f"part {claim.number} has another {name}")
        chosen.append(part)
    for part in chosen[:-1]:
        if part.row.size < PART_MIN_BYTES:
            raise EntityTooSmall(
                f"part {part.number} has {part.row.size} bytes; all but the last need {PART_MIN_BYTES}"
            )
    return chosen


def _replace_upload(
    upload: OpenUpload, chosen: Sequence[StoredPart], composite: ContentId | None, draft: Draft, session: Session
) -> Prepared:
    """The composite in place of the upload and of the chosen parts, which give it their references."""
    extents: list[Extent] = []
    for part in chosen:
        # A part that was coded anew meanwhile keeps its content, which leads on to its successor.
        extents += [Extent(part.row.content, 0, part.row.size)] if part.row.content else part.row.extents
    if len(extents) > EXTENTS_MAX_COUNT:
        raise InvalidRequest(f"an object is made of at most {EXTENTS_MAX_COUNT} pieces of others, not {len(extents)}")
    rows = [upload.expectation, *(part.expectation for part in chosen)]
    prepared = Prepared([Delete(row.key) for row in rows], list(rows))
    if composite is not None:
        row = ContentRow(
            shape=ContentRow.SHAPE,
            refs=1,
            size=draft.size,
            created_ns=draft.modified_ns,
            condemned_ns=0,
            root=None,
            walk_root=None,
            extents=extents,
            parts=[part.row.size for part in chosen],
            code=("", 0, 0),
            layout_version=0,
            part_checksums=_part_checksums(chosen),
        )
        prepared.changes.append(Put(content_row_key(composite), row.encode()))
        prepared.expecting.append(session.alive)
    return prepared


def _batches(parts: Sequence[StoredPart]) -> list[list[StoredPart]]:
    """Parts that are given up in one commit each, the last batch perhaps empty."""
    batches: list[list[StoredPart]] = [[]]
    changes = 0
    for part in parts:
        # Its own row; and of each content, its row and the list of what is condemned.
        cost = 1 + 2 * len(_named(part.row))
        if changes + cost > _RELEASE_CHANGES_MAX_COUNT:
            batches.append([])
            changes = 0
        batches[-1].append(part)
        changes += cost
    return batches


def _part_checksums(chosen: Sequence[StoredPart]) -> dict[str, list[str]]:
    """Checksums of the algorithms that all of the parts have."""
    common = set.intersection(*(set(part.row.checksums) for part in chosen))
    return {algorithm: [part.row.checksums[algorithm] for part in chosen] for algorithm in sorted(common)}


def _named(row: PartRow) -> list[ContentId]:
    """The contents that a part's row refers to, once for each reference."""
    own = [ContentId(row.content)] if row.content is not None else []
    return own + [ContentId(extent.content) for extent in row.extents]


def _contents(parts: Sequence[StoredPart]) -> list[ContentId]:
    return [content for part in parts for content in _named(part.row)]


def _nothing_between(upload: bytes, parts: Sequence[StoredPart]) -> list[IsEmpty]:
    """No part of the upload of that id besides these: the gaps between their rows are empty."""
    whole = prefix_range(parts_prefix(upload))
    start = whole.start
    gaps: list[IsEmpty] = []
    for part in parts:
        key = part.expectation.key
        if start < key:
            gaps.append(IsEmpty(KeyRange(start, key)))
        # The next number's key: one commit could not expect a gap behind each of 10,000 parts.
        start = part_row_key(upload, part.number + 1)
    gaps.append(IsEmpty(KeyRange(start, whole.end)))
    return gaps


def _fingerprint(wanted: Sequence[CompletedPart]) -> bytes:
    return blake3(msgspec.msgpack.encode([(part.number, part.etag.strip('"')) for part in wanted])).digest()
