"""Layouts as rows: which are live, which comes next, which is done with.

Each live layout has a row, never changed; the newest is the one that new blocks are placed by. A publish expects the
rows of the layouts that its blocks were placed by, so a layout cannot be retired under an upload in flight.
"""

from dataclasses import dataclass

from holdfast.core.clock import Randomness
from holdfast.core.errors import AlreadyExists, InvalidRequest, PreconditionFailed, Unavailable
from holdfast.core.ids import Token, new_token
from holdfast.core.ranges import prefix_range
from holdfast.meta.interface import Delete, HasToken, IsAbsent, Meta, Put, Row
from holdfast.objects.rows import LAYOUTS, layout_row_key
from holdfast.placement import Layout, decode_layout, encode_layout

# Readers try each live layout in turn: more would make a read of something missing slow.
LIVE_MAX_COUNT = 3


@dataclass(frozen=True, slots=True)
class LiveLayout:
    layout: Layout
    token: Token


class Layouts:
    """The `L` rows."""

    def __init__(self, meta: Meta, randomness: Randomness) -> None:
        self._meta = meta
        self._randomness = randomness
        self._tokens: dict[int, Token] = {}

    async def live(self) -> tuple[Layout, ...]:
        """Newest first. Empty in a store that is being made."""
        page = await self._meta.scan(prefix_range(LAYOUTS), limit=LIVE_MAX_COUNT + 1)
        found = [(decode_layout(row.value), row.token) for row in page.entries if isinstance(row, Row)]
        self._tokens = {layout.version: token for layout, token in found}
        return tuple(layout for layout, _ in reversed(found))

    def expectation(self, version: int) -> HasToken:
        """What a publish expects that was placed by this layout. Raises Unavailable when it was retired meanwhile."""
        token = self._tokens.get(version)
        if token is None:
            raise Unavailable(f"layout {version}, which the blocks were placed by, was retired meanwhile; try again")
        return HasToken(layout_row_key(version), token)

    async def publish(self, layout: Layout) -> None:
        """Make `layout` the newest. Raises AlreadyExists when another change was faster, InvalidRequest when too many
        layouts are live: their moves must end first."""
        live = await self.live()
        if len(live) >= LIVE_MAX_COUNT:
            raise InvalidRequest(
                f"{len(live)} layouts are live: fragments are still on the move from earlier changes; wait for upkeep"
            )
        if live and (layout.version != live[0].version + 1 or layout.previous != live[0].hash):
            raise AlreadyExists("the layout was changed meanwhile; look at it again")
        expecting = [self.expectation(old.version) for old in live[:1]]
        key = layout_row_key(layout.version)
        try:
            await self._meta.commit(
                [Put(key, encode_layout(layout))], [IsAbsent(key), *expecting], token=new_token(self._randomness)
            )
        except PreconditionFailed:
            raise AlreadyExists("the layout was changed meanwhile; look at it again") from None

    async def retire(self, version: int) -> None:
        """Every fragment has left that layout. Missing is fine. Raises PreconditionFailed for the newest."""
        live = await self.live()
        if not live or live[0].version <= version:
            raise PreconditionFailed("the newest layout cannot be retired")
        if version in self._tokens:
            # The newest one's row is expected too, so that it is still the newest, or has a successor.
            await self._meta.commit(
                [Delete(layout_row_key(version))],
                [self.expectation(live[0].version)],
                token=new_token(self._randomness),
            )
