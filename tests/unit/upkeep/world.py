"""A whole store in memory, as upkeep sees one: drives that misbehave, rows, layouts; and a hand that kills.

The oracle of the tests reads the drives' dicts and the rows directly, not through anything that upkeep calls.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import msgspec
from blake3 import blake3

from holdfast.core.errors import (
    Corrupt,
    HoldfastError,
    NodeDown,
    NotEnoughFragments,
    NotFound,
    PreconditionFailed,
    Unavailable,
)
from holdfast.core.ids import BlockId, Buffer, ContentId, DriveId, SessionId, new_content_id, session_of
from holdfast.core.ranges import ByteRange
from holdfast.drives.interface import Drive, DriveUsage, Fragment, FragmentInfo, FragmentKey, FragmentPart
from holdfast.drives.memory import MemoryDrive
from holdfast.erasure import BlockRef, Code, CodedBlock, decode, encode
from holdfast.erasure.code import Matrix
from holdfast.testing.clock import FakeClock, SeededRandomness
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

TAG = b"tag"


class Killed(BaseException):
    """The process is gone: nobody catches this."""


class Hand:
    """Kills the process before or after the n-th thing that it does to the world; once dead, it does nothing more."""

    def __init__(self) -> None:
        self.left: int | None = None

    def touch(self) -> None:
        if self.left is None:
            return
        if self.left == 0:
            raise Killed
        self.left -= 1


class FrailDrive:
    """A memory drive that falls silent, rots, and forgets. Putting a key that is there changes only its tag."""

    def __init__(self, id: DriveId, hand: Hand, *, capacity: int = 1 << 40) -> None:
        self.inner = MemoryDrive(id, capacity=capacity)
        self.hand = hand
        self.silent = False
        self.rotten: set[FragmentKey] = set()

    @property
    def id(self) -> DriveId:
        return self.inner.id

    def held(self) -> dict[FragmentKey, Fragment]:
        return self.inner._fragments

    def good(self) -> set[FragmentKey]:
        return self.held().keys() - self.rotten

    def lose(self, key: FragmentKey) -> Fragment:
        """Forget a fragment without a word."""
        self.inner._keys.remove(key)
        self.rotten.discard(key)
        return self.held().pop(key)

    async def wipe(self) -> None:
        await self.inner.delete(list(self.held()))
        self.rotten.clear()

    def _check(self) -> None:
        self.hand.touch()
        if self.silent:
            raise NodeDown("silent")

    async def put(self, fragments: Sequence[Fragment]) -> None:
        self._check()
        await self.inner.put(fragments)
        self.hand.touch()

    async def get(self, key: FragmentKey, range: ByteRange | None = None) -> FragmentPart:
        self._check()
        part = await self.inner.get(key, range)
        if key in self.rotten:
            raise Corrupt("rotten")
        return part

    def get_at_once(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        raise BlockingIOError

    def get_here(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        raise BlockingIOError

    def expect(self, key: FragmentKey) -> None:
        pass

    async def has(self, keys: Sequence[FragmentKey]) -> list[bool]:
        self._check()
        return await self.inner.has(keys)

    async def delete(self, keys: Sequence[FragmentKey]) -> None:
        self._check()
        await self.inner.delete(keys)
        self.rotten -= set(keys)
        self.hand.touch()

    async def list(self, after: FragmentKey | None = None, limit: int = 1000) -> list[FragmentInfo]:
        self._check()
        return await self.inner.list(after, limit)

    async def usage(self) -> DriveUsage:
        self._check()
        return await self.inner.usage()

    async def close(self) -> None:
        await self.inner.close()


@dataclass(frozen=True)
class Placed:
    """Rendezvous by hash: enough of a placement for tests."""

    version: int
    active: tuple[DriveId, ...]

    def drives(self, ref: BlockRef) -> tuple[DriveId, ...]:
        return tuple(sorted(self.active, key=lambda drive: blake3(drive + ref.id).digest()))


class WorldLayouts:
    def __init__(self, first: Placed, hand: Hand) -> None:
        self.all = [first]
        self.hand = hand

    async def live(self) -> list[Placed]:
        self.hand.touch()
        return list(self.all)

    async def retire(self, version: int) -> None:
        self.hand.touch()
        if version == self.all[0].version:
            raise PreconditionFailed("the newest layout")
        self.all = [layout for layout in self.all if layout.version != version]

    def change(self, active: Sequence[DriveId]) -> None:
        self.all.insert(0, Placed(self.all[0].version + 1, tuple(active)))


class _Child(msgspec.Struct, array_like=True):
    id: bytes
    matrix: str
    k: int
    m: int
    length: int

    def ref(self) -> BlockRef:
        return BlockRef(BlockId(self.id), Code(Matrix(self.matrix), self.k, self.m), self.length)


def _child(ref: BlockRef) -> _Child:
    return _Child(ref.id, ref.code.matrix.value, ref.code.k, ref.code.m, ref.length)


@dataclass
class Content:
    code: Code
    refs: list[BlockRef]
    """Leaves, then the root, which lists them."""
    layout_version: int
    condemned_ns: int | None = None


def tag_of(content: ContentId, position: int) -> bytes:
    return TAG + content + bytes((position,))


def open_tag(tag: Buffer) -> TaggedContent:
    data = bytes(tag)
    if not data.startswith(TAG) or len(data) != len(TAG) + 17:
        raise Corrupt("not our tag")
    return TaggedContent(ContentId(data[3:19]), data[19], 0)


class World:
    """The rows (`Catalogue`), the drives and the layouts, and what a writer does to them."""

    def __init__(self, drive_count: int, seed: int = 0) -> None:
        self.clock = FakeClock()
        self.hand = Hand()
        self.random = SeededRandomness(seed)
        self.drives: dict[DriveId, FrailDrive] = {}
        for _ in range(drive_count):
            self.add_drive()
        self.layouts = WorldLayouts(Placed(1, tuple(self.drives)), self.hand)
        self.rows: dict[ContentId, Content] = {}
        self.outbox: dict[bytes, tuple[bytes, StoredBlock]] = {}
        self.beats: dict[SessionId, int] = {}
        self.in_flight: dict[ContentId, Content] = {}
        self.progress: dict[str, bytes] = {}
        self.trusted = True
        self.read_only = False
        self.session = self.new_session()

    # --- what writers and operators do ---------------------------------------------------------------------------

    def add_drive(self, *, capacity: int = 1 << 40) -> FrailDrive:
        drive = FrailDrive(DriveId(self.random.bytes(16)), self.hand, capacity=capacity)
        self.drives[drive.id] = drive
        return drive

    def attached(self) -> dict[DriveId, Drive]:
        return dict(self.drives)

    def new_session(self) -> SessionId:
        session = SessionId(self.random.bytes(8))
        self.beats[session] = 0
        return session

    async def write(self, code: Code, leaves: int = 1, *, handoff: bool = False) -> ContentId:
        """Write the blocks of a content; nothing refers to it yet."""
        name = new_content_id(self.session, self.random)
        content = Content(code, [], self.layouts.all[0].version)
        for position in range(leaves):
            await self._write_block(name, content, position, encode(self.random.bytes(200), code), handoff=handoff)
        # Padded with fresh bytes, as a seal would be: equal lists of children never make equal blocks.
        node = msgspec.msgpack.encode((self.random.bytes(16), [_child(ref) for ref in content.refs]))
        await self._write_block(name, content, leaves, encode(node, code), handoff=handoff)
        self.in_flight[name] = content
        return name

    def publish(self, name: ContentId) -> None:
        content = self.in_flight.pop(name)
        if session_of(name) not in self.beats:
            raise PreconditionFailed("the session was expired")
        self.rows[name] = content
        for position, ref in enumerate(content.refs):
            if not self.is_whole(ref):
                self._enqueue(self._stored(name, position, ref))

    async def create(self, code: Code, leaves: int = 1, *, handoff: bool = False) -> ContentId:
        name = await self.write(code, leaves, handoff=handoff)
        self.publish(name)
        return name

    def release(self, name: ContentId) -> None:
        self.rows[name].condemned_ns = self.clock.now_ns()

    async def _write_block(
        self, name: ContentId, content: Content, position: int, block: CodedBlock, *, handoff: bool
    ) -> None:
        order = self.layouts.all[0].drives(block.ref)
        tag = tag_of(name, position)
        stored = 0
        for index in range(block.ref.code.width):
            key = FragmentKey(block.ref.id, index)
            fragment = Fragment(key, block.commitment, block.leaves[index], tag, block.payloads[index])
            places = order[index : index + 1]
            if handoff and index == 0:
                places = order[block.ref.code.width :]
            for drive in places:
                if not self.drives[drive].silent:
                    await self.drives[drive].inner.put([fragment])
                    stored += 1
                    break
        content.refs.append(block.ref)
        if stored < block.ref.code.write_quorum:
            raise NotEnoughFragments(f"{stored} stored")

    # --- the oracle ----------------------------------------------------------------------------------------------

    def holders(self, ref: BlockRef) -> dict[int, set[DriveId]]:
        """Good fragments, on silent drives too."""
        return {
            index: found
            for index in range(ref.code.width)
            if (found := {d.id for d in self.drives.values() if FragmentKey(ref.id, index) in d.good()})
        }

    def is_whole(self, ref: BlockRef) -> bool:
        active = self.layouts.all[0].drives(ref)
        holders = self.holders(ref)
        homeless = [holders.get(index, set()) for index in range(len(active), ref.code.width)]
        return all(holders.get(index) == {home} for index, home in enumerate(active[: ref.code.width])) and all(
            len(drives) <= 1 and drives <= set(active) for drives in homeless
        )

    def living(self) -> dict[ContentId, Content]:
        return {name: content for name, content in self.rows.items() if content.condemned_ns is None}

    def fragments_of(self, name: ContentId) -> list[FragmentKey]:
        return [
            key
            for drive in self.drives.values()
            for key, fragment in drive.held().items()
            if fragment.tag.startswith(TAG + name)
        ]

    def good_indices(self) -> dict[BlockId, set[int]]:
        """Of every block of everything that lives or is in flight."""
        flying = [content for name, content in self.in_flight.items() if session_of(name) in self.beats]
        contents = [*self.living().values(), *flying]
        return {ref.id: set(self.holders(ref)) for content in contents for ref in content.refs}

    # --- Catalogue -----------------------------------------------------------------------------------------------

    def _stored(
        self, name: ContentId, position: int, ref: BlockRef, unread: HoldfastError | None = None
    ) -> StoredBlock:
        tagged = TaggedContent(name, position, 0)
        return StoredBlock(tagged, ref, tag_of(name, position), unread, whole=unread is None)

    def _enqueue(self, block: StoredBlock) -> None:
        self.outbox[bytes(block.ref.id)] = (self.random.bytes(16), block)

    async def liveness(self, contents: Sequence[ContentId]) -> list[Liveness]:
        self.hand.touch()
        return [self._liveness(name) for name in contents]

    def _liveness(self, name: ContentId) -> Liveness:
        if not self.trusted:
            return Liveness.UNKNOWN
        if name in self.rows:
            return Liveness.LIVE if self.rows[name].condemned_ns is None else Liveness.CONDEMNED
        return Liveness.LIVE if session_of(name) in self.beats else Liveness.GONE

    async def contents(self, after: ContentId | None = None) -> AsyncIterator[ContentEntry]:
        for name in sorted(self.rows):
            if after is not None and name <= after:
                continue
            self.hand.touch()
            content = self.rows.get(name)
            if content is not None and content.condemned_ns is None:
                yield ContentEntry(name, content.code, 200 * len(content.refs), content.layout_version)

    async def blocks(self, content: ContentId) -> AsyncIterator[StoredBlock]:
        if content not in self.rows:
            raise NotFound("no such content")
        *_, root = self.rows[content].refs
        unread: HoldfastError | None = None
        try:
            _, children = msgspec.msgpack.decode(bytes(await self.read(root)), type=tuple[bytes, list[_Child]])
            for position, child in enumerate(children):
                yield self._stored(content, position, child.ref())
        except HoldfastError as error:
            unread = error
        yield self._stored(content, len(self.rows[content].refs) - 1 if content in self.rows else 0, root, unread)

    async def read(self, ref: BlockRef) -> Buffer:
        """The block, from what the drives that answer hold."""
        payloads: dict[int, Buffer] = {}
        for drive in self.drives.values():
            for index in range(ref.code.width):
                key = FragmentKey(ref.id, index)
                if not drive.silent and key in drive.good():
                    payloads[index] = drive.held()[key].payload
        self.hand.touch()
        return decode(ref, payloads)

    async def find(self, tagged: TaggedContent, block: BlockId) -> StoredBlock:
        self.hand.touch()
        content = self.rows.get(tagged.content)
        if content is not None and tagged.position < len(content.refs):
            ref = content.refs[tagged.position]
            if ref.id == block:
                return self._stored(tagged.content, tagged.position, ref)
        raise NotFound("no such block")

    async def condemned(self, before_ns: int, *, after: Condemned | None = None, limit: int = 100) -> list[Condemned]:
        self.hand.touch()
        found = sorted(
            (content.condemned_ns, name)
            for name, content in self.rows.items()
            if content.condemned_ns is not None and content.condemned_ns < before_ns
        )
        behind = (after.since_ns, after.content) if after else (-1, b"")
        return [Condemned(name, since) for since, name in found if (since, name) > behind][:limit]

    async def forget(self, content: ContentId) -> None:
        self.hand.touch()
        row = self.rows.get(content)
        if row is not None and row.condemned_ns is None:
            raise PreconditionFailed("it lives")
        self.rows.pop(content, None)
        self.hand.touch()

    async def placed(self, content: ContentId, layout_version: int) -> None:
        self.hand.touch()
        if content in self.rows:
            self.rows[content].layout_version = max(self.rows[content].layout_version, layout_version)

    async def sessions(self) -> list[SessionBeat]:
        self.hand.touch()
        return [SessionBeat(session, beat) for session, beat in self.beats.items()]

    async def expire_session(self, session: SessionBeat) -> bool:
        self.hand.touch()
        if self.beats.get(session.session) != session.beat:
            return False
        del self.beats[session.session]
        return True

    async def check_writable(self) -> None:
        self.hand.touch()
        if self.read_only:
            raise Unavailable("the metadata is read-only")

    async def damaged(self, *, after: bytes | None = None, limit: int = 100) -> list[RepairTask]:
        self.hand.touch()
        keys = sorted(key for key in self.outbox if after is None or key > after)[:limit]
        return [RepairTask(key, *self.outbox[key]) for key in keys]

    async def count_damaged(self) -> int:
        return len(self.outbox)

    async def repaired(self, task: RepairTask) -> None:
        self.hand.touch()
        if task.key in self.outbox and self.outbox[task.key][0] == task.token:
            del self.outbox[task.key]

    async def report_damage(self, blocks: Sequence[StoredBlock]) -> None:
        self.hand.touch()
        for block in blocks:
            self._enqueue(block)

    async def recode(self, content: ContentId, code: Code) -> Recoded:
        self.hand.touch()
        row = self.rows.get(content)
        if row is None or row.condemned_ns is not None or row.code == code:
            return Recoded(0, whole=True)
        new = await self.write(code, len(row.refs) - 1)
        self.publish(new)
        self.release(content)
        return Recoded(200, whole=True)

    async def load_progress(self, name: str) -> bytes:
        self.hand.touch()
        if name not in self.progress:
            raise NotFound(name)
        return self.progress[name]

    async def save_progress(self, name: str, data: bytes) -> None:
        self.hand.touch()
        self.progress[name] = data
