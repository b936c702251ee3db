"""The end of sessions over the product's own rows: who is taken for dead, and what an upload that was loses."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import pytest

from holdfast.cli.catalogue import RowCatalogue
from holdfast.core.errors import PreconditionFailed, Unavailable
from holdfast.core.ids import Buffer, ContentId, SessionId, Token
from holdfast.core.limits import PART_MIN_BYTES
from holdfast.meta.interface import Change, Expectation
from holdfast.objects.errors import NoSuchObject, SessionExpired
from holdfast.objects.model import CompletedPart, PutOptions
from holdfast.objects.rows import heartbeat_row_key
from holdfast.upkeep.interface import SESSION_SILENCE_SECONDS, Liveness
from holdfast.upkeep.sessions import LOOK_SECONDS, SessionWatch
from tests.unit.objects.world import World, collect

BODY = bytes(range(256)) * 100


@dataclass
class Rows:
    """A world whose metadata takes writes, or does not, or lets something happen first."""

    world: World
    read_only: bool = False

    def __post_init__(self) -> None:
        self.catalogue = RowCatalogue(
            self.world.meta, self.world.contents, self.world.tags, self.world.clock, self.world.randomness
        )
        self.commit = self.world.rows.commit
        self.world.rows.commit = self._commit  # type: ignore[method-assign]
        self.doomed: SessionId | None = None
        """Expired just before the next commit."""

    async def _commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        if self.read_only:
            raise Unavailable("read-only")
        doomed, self.doomed = self.doomed, None
        if doomed is not None:
            await self.expire(doomed)
        await self.commit(changes, expecting, token=token)

    async def expire(self, session: SessionId) -> None:
        for beat in await self.catalogue.sessions():
            if beat.session == session:
                assert await self.catalogue.expire_session(beat)

    async def sessions(self) -> set[SessionId]:
        return {beat.session for beat in await self.catalogue.sessions()}

    async def liveness(self, content: ContentId) -> Liveness:
        [state] = await self.catalogue.liveness([content])
        return state


@pytest.fixture
async def rows() -> AsyncIterator[Rows]:
    rows = Rows(await World.open())
    yield rows
    await rows.world.close()


async def test_nobody_is_expired_for_a_time_in_which_no_heart_could_beat(rows: Rows) -> None:
    """The first to write after a long time without was the one who expired the sessions of all others."""
    world = rows.world
    writer = await world.contents.open_writer()
    await writer.write((BODY,), lambda: None)
    session = (await world.sessions.current()).id
    worker = SessionWatch(rows.catalogue, world.clock)
    await worker.work()
    rows.read_only = True
    for _ in range(10):
        await world.clock.advance(LOOK_SECONDS)
        await worker.work()
    rows.read_only = False
    await worker.work()
    assert await rows.sessions() == {session}
    assert await rows.liveness(writer.content) is Liveness.LIVE
    prepared = await writer.finish()
    await world.meta.commit(prepared.changes, prepared.expecting, token=Token(bytes(16)))


async def test_the_dead_are_expired_once_their_hearts_could_have_beaten(rows: Rows) -> None:
    world = rows.world
    session = (await world.sessions.current()).id
    assert world.sessions._heart is not None
    world.sessions._heart.cancel()
    worker = SessionWatch(rows.catalogue, world.clock)
    rows.read_only = True
    for _ in range(10):
        await worker.work()
        await world.clock.advance(LOOK_SECONDS)
    rows.read_only = False
    for _ in range(round(SESSION_SILENCE_SECONDS / LOOK_SECONDS)):
        await worker.work()
        assert await rows.sessions() == {session}
        await world.clock.advance(LOOK_SECONDS)
    await worker.work()
    assert await rows.sessions() == set()
    assert worker.status() == "1 sessions expired"


async def test_looking_writes_nothing_while_every_heart_beats(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    await rows.world.sessions.current()

    async def check_writable() -> None:
        raise AssertionError

    monkeypatch.setattr(rows.catalogue, "check_writable", check_writable)
    worker = SessionWatch(rows.catalogue, rows.world.clock)
    for _ in range(10):
        await worker.work()
        await rows.world.clock.advance(LOOK_SECONDS)


async def test_a_heartbeat_never_grows(rows: Rows) -> None:
    """A full store takes what does not: a session of half an hour would have ended there, and one of an hour."""
    world = rows.world
    key = heartbeat_row_key((await world.sessions.current()).id)
    lengths = set()
    for _ in range(300):
        lengths.add(len((await world.meta.get(key)).value))
        await world.clock.advance(15.0)
    assert len(lengths) == 1


# What was expired is never published: the session is looked for in the commit itself


async def test_an_object_whose_session_ends_just_before_its_commit(rows: Rows) -> None:
    world = rows.world
    session = (await world.sessions.current()).id

    async def body() -> AsyncIterator[Buffer]:
        yield BODY
        rows.doomed = session

    with pytest.raises(SessionExpired):
        await world.store.put_object("bucket", "key", body(), PutOptions())
    assert rows.doomed is None
    with pytest.raises(NoSuchObject):
        await world.store.object_info("bucket", "key")
    await world.store.put_object("bucket", "key", BODY, PutOptions())
    assert await collect((await world.store.open_object("bucket", "key")).read()) == BODY


async def test_a_part_whose_session_ends_just_before_its_commit(rows: Rows) -> None:
    world = rows.world
    upload = await world.store.create_upload("bucket", "key", PutOptions())
    rows.doomed = (await world.sessions.current()).id
    with pytest.raises(SessionExpired):
        await world.store.put_part("bucket", "key", upload.id, 1, BODY, PutOptions())
    assert await world.store.list_parts("bucket", "key", upload.id) == ([], False)


async def test_a_completion_whose_session_ends_just_before_its_commit_has_another(rows: Rows) -> None:
    world = rows.world
    upload = await world.store.create_upload("bucket", "key", PutOptions())
    part = await world.store.put_part("bucket", "key", upload.id, 1, bytes(PART_MIN_BYTES), PutOptions())
    session = (await world.sessions.current()).id
    rows.doomed = session
    wanted = [CompletedPart(1, part.etag)]
    made = await world.store.complete_upload("bucket", "key", upload.id, wanted, PutOptions())
    assert made.size == PART_MIN_BYTES
    assert (await world.sessions.current()).id != session


async def test_what_was_expired_can_be_taken_for_garbage(rows: Rows) -> None:
    """Between the expiry and the publish that fails for it."""
    world = rows.world
    writer = await world.contents.open_writer()
    await writer.write((BODY,), lambda: None)
    assert await rows.liveness(writer.content) is Liveness.LIVE
    await rows.expire((await world.sessions.current()).id)
    assert await rows.liveness(writer.content) is Liveness.GONE
    prepared = await writer.finish()
    with pytest.raises(PreconditionFailed):
        await world.meta.commit(prepared.changes, prepared.expecting, token=Token(bytes(16)))


async def test_all_sessions_are_seen_however_many(rows: Rows) -> None:
    opened = set()
    for _ in range(250):
        rows.world.sessions._session = None
        opened.add((await rows.world.sessions.current()).id)
    assert await rows.sessions() == opened
