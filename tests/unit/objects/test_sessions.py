"""The session of a process: who is refused for want of one must not cost the next one its heartbeat."""

from holdfast.core.ids import SessionId
from holdfast.meta.interface import Delete
from holdfast.objects.rows import HeartbeatRow, heartbeat_row_key, session_row_key
from holdfast.objects.sessions import HEARTBEAT_SECONDS
from holdfast.testing.meta_suite import token
from tests.unit.objects.world import World


async def expire(world: World, session: SessionId) -> None:
    rows = [Delete(session_row_key(session)), Delete(heartbeat_row_key(session))]
    await world.meta.commit(rows, token=token(1))


async def beat(world: World, session: SessionId) -> int:
    return HeartbeatRow.decode((await world.meta.get(heartbeat_row_key(session))).value).beat


async def test_uploads_of_an_expired_session_leave_the_next_one_alive() -> None:
    world = await World.open()
    first = (await world.sessions.current()).id
    await expire(world, first)
    world.sessions.expired()
    second = (await world.sessions.current()).id
    assert second != first
    # A second upload that was begun in the first session ends, and is refused as well.
    world.sessions.expired()
    assert (await world.sessions.current()).id == second
    before = await beat(world, second)
    await world.clock.advance(2 * HEARTBEAT_SECONDS)
    assert await beat(world, second) > before
    await expire(world, second)
    world.sessions.expired()
    assert (await world.sessions.current()).id != second
    await world.close()
