"""Ends the sessions of processes that died, so that what they left behind can be collected.

A session is believed dead when its beat stood still for SESSION_SILENCE_SECONDS by this process's own monotonic
clock. So neither a clock that is wrong elsewhere nor one that jumps here ends anybody's upload, and an observer that
starts anew waits once more.

While the metadata cannot be read or written every beat stands still. So whoever sees one that does writes something
himself, at every look: where that fails, nobody's silence has begun yet.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError
from holdfast.core.ids import SessionId
from holdfast.upkeep.interface import SESSION_SILENCE_SECONDS, Catalogue, SessionBeat
from holdfast.upkeep.worker import TRANQUILITY_TIDYING, State, Wake

# Often enough that a dead session is noticed within a small part of its silence.
LOOK_SECONDS = SESSION_SILENCE_SECONDS / 5


@dataclass(frozen=True, slots=True)
class Sighting:
    beat: int
    since: float
    """Monotonic seconds: when this beat was first seen."""


def watch(
    seen: Mapping[SessionId, Sighting], beats: Sequence[SessionBeat], now: float
) -> tuple[dict[SessionId, Sighting], list[SessionBeat]]:
    """What to remember after seeing `beats`, and which sessions have been silent for too long."""
    remembered = {}
    silent = []
    for beat in beats:
        before = seen.get(beat.session)
        moved = before is None or before.beat != beat.beat
        sighting = Sighting(beat.beat, now) if moved or before is None else before
        remembered[beat.session] = sighting
        if now - sighting.since >= SESSION_SILENCE_SECONDS:
            silent.append(beat)
    return remembered, silent


class SessionWatch:
    """The worker."""

    name = "sessions"
    tranquility = TRANQUILITY_TIDYING

    def __init__(self, catalogue: Catalogue, clock: Clock) -> None:
        self._catalogue = catalogue
        self._clock = clock
        self._seen: dict[SessionId, Sighting] = {}
        self._wake = Wake(clock)
        self._expired = 0

    def status(self) -> str:
        return f"{self._expired} sessions expired" if self._expired else ""

    async def work(self) -> State:
        seen, self._seen = self._seen, {}  # a step that fails begins to count anew
        beats = await self._catalogue.sessions()
        now = self._clock.monotonic()
        seen, silent = watch(seen, beats, now)
        if any(sighting.since < now for sighting in seen.values()):
            try:
                await self._catalogue.check_writable()
            except HoldfastError:
                return State.IDLE
        self._seen = seen
        for beat in silent:
            if await self._catalogue.expire_session(beat):
                self._expired += 1
        return State.IDLE

    async def wait_for_work(self) -> None:
        await self._wake.wait(LOOK_SECONDS)
