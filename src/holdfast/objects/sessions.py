"""Sessions: how an upload in flight keeps others from taking its blocks for garbage.

A process that writes holds one session row. Every content that it writes carries the session's id in its own, and
every publish expects the session's row as it was created. So:

- while the row is there, a fragment without a content row may be an upload in flight and is left alone;
- whoever finds that the heartbeat has stood still deletes the row, and from then on none of the session's uploads
  can be published: what they wrote is garbage for sure, and may be swept.

So expiry may err: it costs uploads, which are tried again, and never what was published, since the session is looked
for in the very commit that publishes. That it does not err while the metadata cannot be written to, and every heart
therefore stands still, is seen to by whoever watches (`upkeep.sessions`).

The heartbeat is a row of its own, so that beating does not change the row that publishes expect.
"""

import asyncio
from dataclasses import dataclass

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import HoldfastError, PreconditionFailed
from holdfast.core.ids import ContentId, SessionId, Token, new_content_id, new_session_id, new_token
from holdfast.meta.interface import Delete, HasToken, IsAbsent, Meta, Put
from holdfast.objects.rows import HeartbeatRow, SessionRow, heartbeat_row_key, session_row_key

# Often enough that three beats may fail before anyone who watches for a minute could think the process dead.
HEARTBEAT_SECONDS = 15.0

# Beats are counted from here, so that all are of one length in msgpack: a full store takes no row that grows.
_BEAT_FIRST = 2**32


@dataclass(frozen=True, slots=True)
class Session:
    id: SessionId
    alive: HasToken
    """What a publish expects."""


class Sessions:
    """This process's session: opened by the first write, opened anew when somebody expired it."""

    def __init__(self, meta: Meta, clock: Clock, randomness: Randomness, *, host: str, process: int) -> None:
        self._meta = meta
        self._clock = clock
        self._randomness = randomness
        self._host = host
        self._process = process
        self._session: Session | None = None
        self._is_doubted = False
        """Somebody was refused for want of a session: of this one, or of one that was expired before it was opened."""
        self._opening = asyncio.Lock()
        self._heart: asyncio.Task[None] | None = None

    async def current(self) -> Session:
        """The open session. Raises Unavailable when its row cannot be read or written."""
        if self._session is not None and not self._is_doubted:
            return self._session
        async with self._opening:
            if self._session is not None and self._is_doubted and not await self._is_there(self._session):
                self._session = None
            self._is_doubted = False
            if self._session is None:
                self._session = await self._open()
                if self._heart is None:
                    self._heart = asyncio.create_task(self._beat(), name="session heartbeat")
            return self._session

    def new_content(self, session: Session) -> ContentId:
        return new_content_id(session.id, self._randomness)

    def new_token(self) -> Token:
        return new_token(self._randomness)

    def expired(self) -> None:
        """A publish found its session expired: the next write looks whether the open one is, and then opens another."""
        self._is_doubted = True

    async def close(self) -> None:
        """End the session. Uploads still in flight can no longer be published."""
        if self._heart is not None:
            self._heart.cancel()
            await asyncio.gather(self._heart, return_exceptions=True)
        session, self._session = self._session, None
        if session is None:
            return
        rows = [Delete(session_row_key(session.id)), Delete(heartbeat_row_key(session.id))]
        try:
            await self._meta.commit(rows, [session.alive], token=new_token(self._randomness))
        except HoldfastError:
            return  # it stands still from now on, so upkeep will expire it

    async def _is_there(self, session: Session) -> bool:
        (row,) = await self._meta.get_many([session.alive.key])
        return row is not None and row.token == session.alive.token

    async def _open(self) -> Session:
        session = new_session_id(self._randomness)
        token = new_token(self._randomness)
        key = session_row_key(session)
        row = SessionRow(SessionRow.SHAPE, self._clock.now_ns(), self._host, self._process)
        beat = HeartbeatRow(HeartbeatRow.SHAPE, _BEAT_FIRST)
        rows = [Put(key, row.encode()), Put(heartbeat_row_key(session), beat.encode())]
        await self._meta.commit(rows, [IsAbsent(key)], token=token)
        return Session(session, HasToken(key, token))

    async def _beat(self) -> None:
        count = _BEAT_FIRST
        while True:
            await self._clock.sleep(HEARTBEAT_SECONDS)
            session = self._session
            if session is None:
                continue
            count += 1
            row = HeartbeatRow(HeartbeatRow.SHAPE, count)
            try:
                await self._meta.commit(
                    [Put(heartbeat_row_key(session.id), row.encode())], [session.alive], token=_beat_token(count)
                )
            except PreconditionFailed:
                self.expired()
            except HoldfastError:
                continue  # the store is not available now; a later beat may be in time


def _beat_token(count: int) -> Token:
    """Of one session no two beats have the same, which is all that whoever expires it relies on."""
    return Token(count.to_bytes(16, "big"))
