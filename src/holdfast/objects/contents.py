"""Contents: bytes in blocks on drives, and the rows that name them.

A simple content is one tree, a composite one a list of extents of simple contents (docs/formats/rows.md). This module
writes and reads them; who refers to them is the business of `references`.
"""

import builtins
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from holdfast.cluster import Cluster
from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError, NotEnoughFragments, NotFound, PreconditionFailed, Unavailable
from holdfast.core.ids import Buffer, ContentId, Token
from holdfast.core.ranges import ByteRange
from holdfast.crypto.envelope import EnvelopeOpener, EnvelopeSealer
from holdfast.crypto.tags import TagSealer
from holdfast.erasure import BlockRef, Code, CodedBlock, code_for, encode
from holdfast.meta.interface import Change, Expectation, IsAbsent, Meta, Put
from holdfast.objects.errors import SessionExpired
from holdfast.objects.layouts import Layouts
from holdfast.objects.references import Prepared
from holdfast.objects.rows import (
    ContentRow,
    Extent,
    RepairRow,
    condemned_row_key,
    content_row_key,
    repair_row_key,
)
from holdfast.objects.sessions import Session, Sessions
from holdfast.tree import Extent as TreeExtent
from holdfast.tree import (
    RootEntry,
    SealingThreads,
    TreeWriter,
    WalkRoot,
    encode_walk_root,
    read,
    read_extents,
    unwrap_root,
    unwrap_walk_root,
    wrap_root,
    wrap_walk_root,
)

# Parts whose rows are read together: few enough that the first byte does not wait, enough that reading ahead goes on
# from part to part.
EXTENTS_AT_ONCE_COUNT = 64


# Subtrees of one upload: up to 1,023 data blocks without a node, and some nodes.
LEAVINGS_MAX_COUNT = 2048

_LOGGER = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ContentKeys:
    """What seals and opens the roots and tags of contents."""

    read_sealer: EnvelopeSealer
    read_opener: EnvelopeOpener
    walk_sealer: EnvelopeSealer
    walk_opener: EnvelopeOpener
    tags: TagSealer


class ContentBlocks:
    """A `tree.BlockStore` for the blocks of one content, remembering what did not reach its place."""

    def __init__(self, cluster: Cluster, code: Code, content: ContentId, tags: TagSealer) -> None:
        self._cluster = cluster
        self.code = code
        self._content = content
        self._tags = tags
        self.layout_versions: set[int] = set()
        self.incomplete: list[tuple[BlockRef, int]] = []

    def encode(self, sealed: Buffer) -> CodedBlock:
        return encode(sealed, code_for(len(sealed), self.code))

    async def put(self, block: CodedBlock, position: int) -> None:
        written = await self._cluster.put(block, self._tags.seal(self._content, position, block.ref.id))
        self.layout_versions.add(written.layout_version)
        if written.missing:
            self.incomplete.append((block.ref, position))

    async def get(self, ref: BlockRef, then: Callable[[Buffer], T]) -> T:
        return await self._cluster.get(ref, then)


class ContentWriter:
    """Writes one new simple content, block by block."""

    def __init__(self, contents: "Contents", session: Session, content: ContentId, blocks: ContentBlocks) -> None:
        self.content = content
        self._contents = contents
        self._session = session
        self._blocks = blocks
        self._tree = TreeWriter(blocks, contents.threads)

    async def write(self, blocks: Sequence[Buffer], done: Callable[[], None]) -> None:
        """As `TreeWriter.write_together`: `done` is called when `blocks` may be reused, unless this raises."""
        await self._tree.write_together(blocks, done)

    async def finish(self) -> Prepared:
        """Wait for every block; the rows that make the content exist, for the commit that publishes it.

        Raises what failed, and Unavailable when a layout that a block was placed by was retired meanwhile.
        """
        root = await self._tree.finish()
        try:
            return self._contents.describe(self._session, self.content, root, self._blocks)
        except HoldfastError:
            await self._contents.condemn_leavings(self._session, [root.walk_root()])
            raise

    async def abort(self) -> None:
        """Give up. No task stays behind; what was written is condemned, so that its space comes back soon."""
        await self._contents.condemn_leavings(self._session, await self._tree.abort())


class Contents:
    """Makes, reads and describes contents."""

    def __init__(
        self,
        meta: Meta,
        cluster: Cluster,
        layouts: Layouts,
        sessions: Sessions,
        keys: ContentKeys,
        threads: SealingThreads,
        code: Code,
        clock: Clock,
    ) -> None:
        self._meta = meta
        self._cluster = cluster
        self._layouts = layouts
        self._sessions = sessions
        self._keys = keys
        self._code = code
        self._clock = clock
        self.threads = threads

    def use_code(self, code: Code) -> None:
        """Code contents that are begun from now on like this."""
        self._code = code

    def use_keys(self, keys: ContentKeys) -> None:
        """Seal and open with these from now on: the keyring was rotated."""
        self._keys = keys

    async def open_writer(self, code: Code | None = None) -> ContentWriter:
        """Begin a content, coded as new objects are, or as told. Raises Unavailable."""
        session = await self._sessions.current()
        content = self._sessions.new_content(session)
        return ContentWriter(self, session, content, self.blocks(content, code))

    def describe(self, session: Session, content: ContentId, root: RootEntry, blocks: ContentBlocks) -> Prepared:
        """The content's row with one reference, repair rows for what did not reach its place, and what both rely on:
        the session and the layouts that the blocks were placed by."""
        now = self._clock.now_ns()
        row = ContentRow(
            shape=ContentRow.SHAPE,
            refs=1,
            size=root.size,
            created_ns=now,
            condemned_ns=0,
            root=wrap_root(root, content, self._keys.read_sealer),
            walk_root=wrap_walk_root(root, content, self._keys.walk_sealer),
            extents=[],
            parts=[],
            code=(blocks.code.matrix.value, blocks.code.k, blocks.code.m),
            layout_version=min(blocks.layout_versions),
        )
        prepared = Prepared([Put(content_row_key(content), row.encode())], [session.alive])
        prepared.expecting += [self._layouts.expectation(version) for version in sorted(blocks.layout_versions)]
        for ref, position in blocks.incomplete:
            repair = repair_row(content, position, ref, now)
            prepared.changes.append(Put(repair_row_key(ref.id), repair.encode()))
        return prepared

    def why_unpublished(self, error: PreconditionFailed) -> HoldfastError:
        """What to tell the caller whose publish failed on an expectation of `describe` (the session is the first)."""
        if not error.failed:
            return error
        if error.failed[0] == 0:
            self._sessions.expired()
            return SessionExpired("the upload's session was expired; try again")
        return Unavailable("the layout that the upload was placed by was retired meanwhile; try again")

    async def read(self, content: ContentId, range: ByteRange) -> AsyncGenerator[Buffer, None]:
        """The bytes of a range, in order. A content that is written anew meanwhile (recode) is read on from there.

        Raises NotFound when the content is gone, and what the drives raise.
        """
        at = range.start
        seen: Token | None = None
        while at < range.end:
            token, row = await self._row(content)
            try:
                async with aclosing(self._read_row(content, row, ByteRange(at, range.end))) as blocks:
                    async for block in blocks:
                        at += len(block)
                        yield block
            except (NotFound, NotEnoughFragments):
                # Its blocks may have been replaced since the row was read; if the row is the same, they were not.
                if token == seen:
                    raise
                seen = token

    async def condemned_twin(self, content: ContentId, row: ContentRow) -> tuple[ContentId, ContentRow]:
        """A condemned content with an id of its own that holds the tree of `row`, for a commit that takes that tree
        away from `content`."""
        twin = self._sessions.new_content(await self._sessions.current())
        root = self.root(content, row)
        return twin, msgspec.structs.replace(
            row,
            refs=0,
            condemned_ns=self._clock.now_ns(),
            root=wrap_root(root, twin, self._keys.read_sealer),
            walk_root=wrap_walk_root(root, twin, self._keys.walk_sealer),
            extents=[],
        )

    async def discard(self, content: ContentId, prepared: Prepared) -> None:
        """Condemn a finished content whose publish was refused: nothing refers to it, and nothing will."""
        now = self._clock.now_ns()
        key = content_row_key(content)
        changes: list[Change] = []
        for change in prepared.changes:
            if isinstance(change, Put) and change.key == key:
                row = msgspec.structs.replace(ContentRow.decode(change.value), refs=0, condemned_ns=now)
                changes += [Put(key, row.encode()), Put(condemned_row_key(now, content), b"")]
        await self._condemn(changes, [IsAbsent(key)])

    async def _condemn(self, changes: Sequence[Change], expecting: Sequence[Expectation] = ()) -> None:
        try:
            await self._meta.commit(changes, expecting, token=self._sessions.new_token())
        except HoldfastError as error:
            _LOGGER.info("an upload's leavings wait for the sweep: %s", error)

    async def condemn_leavings(self, session: Session, roots: Sequence[WalkRoot]) -> None:
        """Give every subtree that an upload left behind a condemned content of its own. When that fails they wait for
        the sweep, which is slower."""
        now = self._clock.now_ns()
        changes: list[Change] = []
        for root in roots[:LEAVINGS_MAX_COUNT]:
            content = self._sessions.new_content(session)
            row = ContentRow(
                shape=ContentRow.SHAPE,
                refs=0,
                size=root.size,
                created_ns=now,
                condemned_ns=now,
                root=None,
                walk_root=self._keys.walk_sealer.seal(encode_walk_root(root), content),
                extents=[],
                parts=[],
                code=(root.ref.code.matrix.value, root.ref.code.k, root.ref.code.m),
                layout_version=0,
            )
            changes += [Put(content_row_key(content), row.encode()), Put(condemned_row_key(now, content), b"")]
        if changes:
            await self._condemn(changes)

    def walk_root(self, content: ContentId, row: ContentRow) -> WalkRoot:
        """For upkeep: raises Corrupt; the row must be of a simple content."""
        assert row.walk_root is not None
        return unwrap_walk_root(row.walk_root, content, self._keys.walk_opener)

    def root(self, content: ContentId, row: ContentRow) -> RootEntry:
        """Raises Corrupt; the row must be of a simple content."""
        assert row.root is not None
        return unwrap_root(row.root, content, self._keys.read_opener)

    def blocks(self, content: ContentId, code: Code | None = None) -> ContentBlocks:
        """The keeper of a content's blocks."""
        return ContentBlocks(self._cluster, code or self._code, content, self._keys.tags)

    async def _row(self, content: ContentId) -> tuple[Token, ContentRow]:
        row = await self._meta.get(content_row_key(content))
        return row.token, ContentRow.decode(row.value)

    async def _read_row(self, content: ContentId, row: ContentRow, range: ByteRange) -> AsyncGenerator[Buffer, None]:
        if row.root is not None:
            async with aclosing(read(self.blocks(content), self.threads, self.root(content, row), range)) as blocks:
                async for block in blocks:
                    yield block
            return
        wanted = cut(row.extents, range)
        for first in builtins.range(0, len(wanted), EXTENTS_AT_ONCE_COUNT):
            window = await self._resolve(wanted[first : first + EXTENTS_AT_ONCE_COUNT])
            async with aclosing(read_extents(self.blocks(content), self.threads, window)) as blocks:
                async for block in blocks:
                    yield block

    async def _resolve(self, extents: Sequence[Extent]) -> list[TreeExtent]:
        """Extents of contents as extents of trees; a content that was recoded is a composite of its successor."""
        rows = await self._meta.get_many([content_row_key(extent.content) for extent in extents])
        found: list[TreeExtent] = []
        for extent, stored in zip(extents, rows, strict=True):
            if stored is None:
                raise NotFound(f"content {extent.content.hex()} is gone")
            row = ContentRow.decode(stored.value)
            if row.root is None:
                found += await self._resolve(cut(row.extents, ByteRange(extent.skip, extent.skip + extent.length)))
            else:
                found.append(TreeExtent(self.root(ContentId(extent.content), row), extent.skip, extent.length))
        return found


def cut(extents: Sequence[Extent], wanted: ByteRange) -> list[Extent]:
    """What of these extents, one after the other, a range of their bytes covers."""
    offset = 0
    found: list[Extent] = []
    for extent in extents:
        start, end = max(wanted.start, offset), min(wanted.end, offset + extent.length)
        if start < end:
            found.append(Extent(extent.content, extent.skip + start - offset, end - start))
        offset += extent.length
    return found


def repair_row(content: ContentId, position: int, ref: BlockRef, noticed_ns: int) -> RepairRow:
    code = ref.code
    return RepairRow(
        RepairRow.SHAPE, content, position, ref.id, code.matrix.value, code.k, code.m, ref.length, noticed_ns
    )
