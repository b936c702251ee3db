"""The owner's rows as upkeep sees them: where the rooms `objects` and `upkeep`, which do not know each other, meet."""

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing

import msgspec

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import NotFound, PreconditionFailed, Unavailable
from holdfast.core.ids import BlockId, Buffer, ContentId, SessionId, Token, new_token, session_of
from holdfast.core.limits import MIB
from holdfast.core.ranges import ByteRange, KeyRange, prefix_range
from holdfast.crypto.tags import TagOpener, TagSealer
from holdfast.erasure import BlockRef, Code, Matrix
from holdfast.meta.interface import Change, Delete, Expectation, HasToken, Meta, Put, Row
from holdfast.objects.contents import Contents, repair_row
from holdfast.objects.references import Prepared, References
from holdfast.objects.rows import (
    CONDEMNED,
    CONTENTS,
    HEARTBEATS,
    ContentRow,
    Extent,
    HeartbeatRow,
    ProgressRow,
    RepairRow,
    condemned_row_key,
    condemned_row_parts,
    content_row_key,
    heartbeat_row_key,
    progress_row_key,
    repair_prefix,
    repair_row_key,
    session_row_key,
)
from holdfast.tree import locate, walk
from holdfast.upkeep.interface import (
    Condemned,
    ContentEntry,
    Liveness,
    Recoded,
    RepairTask,
    SessionBeat,
    StoredBlock,
    TaggedContent,
)

# Rows read at once: a page that is decoded in about a millisecond.
PAGE_COUNT = 200

# Each content that is let go of takes two rows of a commit, of which there may be COMMIT_CHANGES_MAX_COUNT.
EXTENTS_AT_ONCE_COUNT = 4000

# What a recode that is killed does again of one content. 5 GiB, the longest content, are 80 of them.
PIECE_BYTES = 64 * MIB

# Rows of this kind change under a walk; whoever loses so many races in a row waits for the next round of upkeep.
ATTEMPTS_MAX_COUNT = 16


def open_tag(opener: TagOpener, /, tag: Buffer) -> TaggedContent:
    """`upkeep.interface.TagOpener` over the keyring's. Raises Corrupt."""
    opened = opener.open(tag)
    return TaggedContent(opened.content, opened.position, opened.epoch, opened.block)


class RowCatalogue:
    """`upkeep.interface.Catalogue` over the product's rows."""

    def __init__(
        self,
        meta: Meta,
        contents: Contents,
        tags: TagSealer,
        clock: Clock,
        randomness: Randomness,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        """`piece_bytes` is what of a content is recoded at once."""
        self._meta = meta
        self._contents = contents
        self._tags = tags
        self._clock = clock
        self._randomness = randomness
        self._piece_bytes = piece_bytes
        self._references = References(meta, clock)

    # What lives

    async def liveness(self, contents: Sequence[ContentId]) -> list[Liveness]:
        keys = [key for content in contents for key in (content_row_key(content), session_row_key(session_of(content)))]
        rows = await self._meta.get_many(keys)
        found: list[Liveness] = []
        for row, session in zip(rows[::2], rows[1::2], strict=True):
            if row is not None:
                condemned = ContentRow.decode(row.value).condemned_ns
                found.append(Liveness.CONDEMNED if condemned else Liveness.LIVE)
            else:
                found.append(Liveness.LIVE if session is not None else Liveness.GONE)
        return found

    async def contents(self, after: ContentId | None = None) -> AsyncIterator[ContentEntry]:
        whole = prefix_range(CONTENTS)
        start: bytes | None = content_row_key(after) + b"\0" if after is not None else whole.start
        while start is not None:
            page = await self._meta.scan(KeyRange(start, whole.end), limit=PAGE_COUNT)
            for entry in page.entries:
                assert isinstance(entry, Row)
                row = ContentRow.decode(entry.value)
                if row.condemned_ns or row.root is None:
                    continue
                matrix, k, m = row.code
                content = ContentId(entry.key[len(CONTENTS) :])
                code = Code(Matrix(matrix), k, m)
                yield ContentEntry(content, code, row.size, row.layout_version, begun=bool(row.extents))
            start = page.resume

    async def blocks(self, content: ContentId) -> AsyncIterator[StoredBlock]:
        _, row = await self._references.read(content)
        if row.walk_root is None:
            return
        root = self._contents.walk_root(content, row)
        async with aclosing(walk(self._contents.blocks(content), self._contents.threads, root)) as blocks:
            async for block in blocks:
                stored = self._stored(content, block.position, block.ref)
                yield StoredBlock(stored.tagged, stored.ref, stored.tag, block.unread, block.whole)

    async def find(self, tagged: TaggedContent, block: BlockId) -> StoredBlock:
        _, row = await self._references.read(tagged.content)
        if row.walk_root is None:
            raise NotFound("the content has no blocks of its own")
        root = self._contents.walk_root(tagged.content, row)
        ref = await locate(self._contents.blocks(tagged.content), self._contents.threads, root, tagged.position)
        if ref.id != block:
            raise NotFound("the content has another block there")
        return self._stored(tagged.content, tagged.position, ref)

    async def placed(self, content: ContentId, layout_version: int) -> None:
        for _ in range(ATTEMPTS_MAX_COUNT):
            try:
                found, row = await self._references.read(content)
            except NotFound:
                return
            if row.layout_version >= layout_version:
                return
            changed = msgspec.structs.replace(row, layout_version=layout_version)
            if await self._try([Put(found.key, changed.encode())], [HasToken(found.key, found.token)]):
                return
        raise Unavailable(f"content {content.hex()} keeps changing")

    # What is done with

    async def condemned(self, before_ns: int, *, after: Condemned | None = None, limit: int = 100) -> list[Condemned]:
        start = condemned_row_key(after.since_ns, after.content) + b"\0" if after is not None else CONDEMNED
        page = await self._meta.scan(KeyRange(start, condemned_row_key(before_ns, b"")), limit=limit, values=False)
        found: list[Condemned] = []
        for entry in page.entries:
            assert isinstance(entry, Row)
            since_ns, content = condemned_row_parts(entry.key)
            found.append(Condemned(content, since_ns))
        return found

    async def forget(self, content: ContentId) -> None:
        """A composite gives up the contents that it is made of, in the same commit, or of many in several."""
        for _ in range(ATTEMPTS_MAX_COUNT):
            try:
                found, row = await self._references.read(content)
            except NotFound:
                return
            if not row.condemned_ns:
                raise PreconditionFailed(f"content {content.hex()} is live")
            given_up, kept = row.extents[:EXTENTS_AT_ONCE_COUNT], row.extents[EXTENTS_AT_ONCE_COUNT:]
            dropped = await self._references.move(dropped=[ContentId(extent.content) for extent in given_up])
            changes: list[Change] = [Delete(found.key), Delete(condemned_row_key(row.condemned_ns, content))]
            if kept:
                changes = [Put(found.key, msgspec.structs.replace(row, extents=kept).encode())]
            expecting: list[Expectation] = [HasToken(found.key, found.token)]
            if await self._try([*changes, *dropped.changes], [*expecting, *dropped.expecting]) and not kept:
                return
        raise Unavailable(f"content {content.hex()} keeps changing")

    async def sessions(self) -> list[SessionBeat]:
        whole = prefix_range(HEARTBEATS)
        start: bytes | None = whole.start
        beats: list[SessionBeat] = []
        while start is not None:
            page = await self._meta.scan(KeyRange(start, whole.end), limit=PAGE_COUNT)
            for entry in page.entries:
                assert isinstance(entry, Row)
                beats.append(SessionBeat(SessionId(entry.key[1:]), HeartbeatRow.decode(entry.value).beat))
            start = page.resume
        return beats

    async def expire_session(self, session: SessionBeat) -> bool:
        keys = [session_row_key(session.session), heartbeat_row_key(session.session)]
        rows = await self._meta.get_many(keys)
        beat = rows[1]
        if beat is None or HeartbeatRow.decode(beat.value).beat != session.beat:
            return False
        return await self._try([Delete(key) for key in keys], [HasToken(beat.key, beat.token)])

    async def check_writable(self) -> None:
        # There is no such row: a session's id is longer.
        await self._meta.commit([Delete(HEARTBEATS)], token=new_token(self._randomness))

    # What is to be repaired

    async def damaged(self, *, after: bytes | None = None, limit: int = 100) -> list[RepairTask]:
        whole = prefix_range(repair_prefix())
        start = after + b"\0" if after is not None else whole.start
        page = await self._meta.scan(KeyRange(start, whole.end), limit=limit)
        tasks: list[RepairTask] = []
        for entry in page.entries:
            assert isinstance(entry, Row)
            row = RepairRow.decode(entry.value)
            ref = BlockRef(BlockId(row.id), Code(Matrix(row.matrix), row.k, row.m), row.length)
            stored = self._stored(ContentId(row.content), row.position, ref)
            tasks.append(RepairTask(entry.key, entry.token, stored))
        return tasks

    async def count_damaged(self) -> int:
        whole = prefix_range(repair_prefix())
        start: bytes | None = whole.start
        count = 0
        while start is not None:
            page = await self._meta.scan(KeyRange(start, whole.end), limit=1000, values=False)
            count += len(page.entries)
            start = page.resume
        return count

    async def repaired(self, task: RepairTask) -> None:
        await self._try([Delete(task.key)], [HasToken(task.key, Token(task.token))])

    async def report_damage(self, blocks: Sequence[StoredBlock]) -> None:
        now = self._clock.now_ns()
        rows = [
            Put(
                repair_row_key(block.ref.id),
                repair_row(block.tagged.content, block.tagged.position, block.ref, now).encode(),
            )
            for block in blocks
        ]
        if rows:
            await self._meta.commit(rows, token=new_token(self._randomness))

    # Changing the code

    async def recode(self, content: ContentId, code: Code) -> Recoded:
        """The bytes move to new contents, a piece at a time, which this one names as its extents beside its tree. Once
        they are all there it becomes a composite of them, and its old tree is condemned under an id of its own. So
        whatever refers to this content reads on, before and after, and what was done is in no other row."""
        _, row = await self._references.read(content)
        if row.condemned_ns or row.root is None:
            return Recoded(0, whole=True)
        if row.code == (code.matrix.value, code.k, code.m):
            await self._drop_pieces(content)
            return Recoded(0, whole=True)
        start = sum(extent.length for extent in row.extents)
        piece = ByteRange(start, min(start + self._piece_bytes, row.size))
        writer = await self._contents.open_writer(code)
        try:
            async with aclosing(self._contents.read(content, piece)) as plain:
                async for block in plain:
                    await writer.write((block,), _nothing)
            prepared = await writer.finish()
        except BaseException:
            await writer.abort()
            raise
        added = False
        try:
            added = await self._add_piece(content, row, Extent(writer.content, 0, piece.length), prepared)
        finally:
            if not added:
                await self._contents.discard(writer.content, prepared)
        return Recoded(piece.length if added else 0, whole=not added or piece.end == row.size)

    async def _drop_pieces(self, content: ContentId) -> None:
        """A recode to another code was begun, and then one back to the content's own was ordered."""
        found, row = await self._references.read(content)
        if row.root is not None and row.extents:
            dropped = await self._references.move(dropped=[ContentId(extent.content) for extent in row.extents])
            changed = Put(found.key, msgspec.structs.replace(row, extents=[]).encode())
            # Whoever changed the row meanwhile leaves this to the next recode.
            await self._try([changed, *dropped.changes], [HasToken(found.key, found.token), *dropped.expecting])

    async def _add_piece(self, content: ContentId, seen: ContentRow, piece: Extent, prepared: Prepared) -> bool:
        """Whether it was added; not if the content is done with, or somebody else recodes it. Raises Unavailable."""
        for _ in range(ATTEMPTS_MAX_COUNT):
            try:
                found, row = await self._references.read(content)
            except NotFound:
                return False
            if row.condemned_ns or row.root is None or row.extents != seen.extents:
                return False
            changed = msgspec.structs.replace(row, extents=[*row.extents, piece])
            changes = list(prepared.changes)
            if sum(extent.length for extent in changed.extents) == row.size:
                old, old_row = await self._contents.condemned_twin(content, row)
                changes.append(Put(content_row_key(old), old_row.encode()))
                changes.append(Put(condemned_row_key(old_row.condemned_ns, old), b""))
                changed = msgspec.structs.replace(changed, root=None, walk_root=None, code=("", 0, 0))
            changes.append(Put(found.key, changed.encode()))
            expecting = [*prepared.expecting, HasToken(found.key, found.token)]
            try:
                await self._meta.commit(changes, expecting, token=new_token(self._randomness))
            except PreconditionFailed as error:
                if error.failed and error.failed[0] < len(prepared.expecting):
                    raise self._contents.why_unpublished(error) from error
            else:
                return True
        raise Unavailable(f"content {content.hex()} keeps changing")

    # What workers remember

    async def load_progress(self, name: str) -> bytes:
        row = await self._meta.get(progress_row_key(name))
        return ProgressRow.decode(row.value).data

    async def save_progress(self, name: str, data: bytes) -> None:
        row = ProgressRow(ProgressRow.SHAPE, data)
        await self._meta.commit([Put(progress_row_key(name), row.encode())], token=new_token(self._randomness))

    def _stored(self, content: ContentId, position: int, ref: BlockRef) -> StoredBlock:
        tagged = TaggedContent(content, position, 0, ref.id)
        return StoredBlock(tagged, ref, self._tags.seal(content, position, ref.id))

    async def _try(self, changes: Sequence[Change], expecting: Sequence[Expectation]) -> bool:
        try:
            await self._meta.commit(changes, expecting, token=new_token(self._randomness))
        except PreconditionFailed:
            return False
        return True


def _nothing() -> None:
    """A block that was read is nobody else's buffer."""
