"""Everything at once: writers, operators, rot, drives that go and come back, processes that are killed at any moment.

What must hold: whatever upkeep does, no block of a content that lives, or of an upload in flight, ever loses its last
good fragment of an index; and once all drives answer and time has passed, everything that lives is whole, everything
else is gone, and the older layouts are retired.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from holdfast.core.errors import NotEnoughFragments, PreconditionFailed
from holdfast.core.ids import BlockId, DriveId
from holdfast.erasure import BlockRef, copies, erasure
from tests.unit.upkeep.crew import Crew
from tests.unit.upkeep.world import FrailDrive, Killed, World

CODES = [copies(2), copies(3), erasure(2, 1), erasure(2, 2)]
picks = st.integers(min_value=0, max_value=1 << 16)


class Upkeep(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = World(6)
        self.crew = Crew(self.world)
        self.spent: set[DriveId] = set()
        """Drives that were drained or replaced: never used again."""

    def run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(coroutine)

    # --- writers -----------------------------------------------------------------------------------------------------

    @rule(code=st.sampled_from(CODES), leaves=st.integers(1, 3), handoff=st.booleans(), publish=st.booleans())
    def put(self, code: Any, leaves: int, handoff: bool, publish: bool) -> None:
        if self.world.session not in self.world.beats:
            self.world.session = self.world.new_session()
        try:
            content = self.loop.run_until_complete(self.world.write(code, leaves, handoff=handoff))
        except NotEnoughFragments:
            return
        if publish:
            self.world.publish(content)

    @precondition(lambda self: self.world.in_flight)
    @rule(pick=picks)
    def publish(self, pick: int) -> None:
        flying = sorted(self.world.in_flight)
        content = flying[pick % len(flying)]
        try:
            self.world.publish(content)
        except PreconditionFailed:
            pass  # its session was expired

    @precondition(lambda self: self.world.living())
    @rule(pick=picks)
    def release(self, pick: int) -> None:
        living = sorted(self.world.living())
        self.world.release(living[pick % len(living)])

    @rule()
    def writer_dies(self) -> None:
        """Its session stands still from now on; what it had in flight is nobody's."""
        self.world.in_flight.clear()
        self.world.session = self.world.new_session()

    # --- misfortune --------------------------------------------------------------------------------------------------

    def _drive(self, pick: int) -> FrailDrive:
        drives = sorted(self.world.drives)
        return self.world.drives[drives[pick % len(drives)]]

    def _refs(self) -> list[BlockRef]:
        contents = [*self.world.living().values(), *self.world.in_flight.values()]
        return [ref for content in contents for ref in content.refs]

    def _bearable(self, lost: FrailDrive) -> bool:
        """Whether every block can still be read when all that this drive holds goes."""
        for ref in self._refs():
            left = [drives - {lost.id} for drives in self.world.holders(ref).values()]
            if sum(map(bool, left)) < ref.code.k:
                return False
        return True

    @rule(pick=picks)
    def fall_silent(self, pick: int) -> None:
        self._drive(pick).silent = True

    @rule(pick=picks)
    def come_back(self, pick: int) -> None:
        self._drive(pick).silent = False

    @rule(pick=picks)
    def rot(self, pick: int) -> None:
        drive = self._drive(pick)
        if drive.held() and self._bearable(drive):
            keys = sorted(drive.held())
            drive.rotten.add(keys[pick % len(keys)])

    @rule(pick=picks)
    def wipe(self, pick: int) -> None:
        drive = self._drive(pick)
        if self._bearable(drive):
            self.run(drive.wipe())

    # --- operators ---------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.world.drives) < 10)
    @rule()
    def add_drive(self) -> None:
        drive = self.world.add_drive()
        self.world.layouts.change([*self.world.layouts.all[0].active, drive.id])
        self.crew = Crew(self.world)

    @precondition(lambda self: len(self.world.layouts.all[0].active) > 3 and len(self.world.layouts.all) < 3)
    @rule(pick=picks)
    def drain(self, pick: int) -> None:
        active = sorted(self.world.layouts.all[0].active)
        active.remove(active[pick % len(active)])
        self.world.layouts.change(active)

    # --- upkeep ------------------------------------------------------------------------------------------------------

    @rule(pick=picks, kill_after=st.none() | st.integers(0, 40))
    def work(self, pick: int, kill_after: int | None) -> None:
        before = self.world.good_indices()
        worker = self.crew.workers[pick % len(self.crew.workers)]
        self.world.hand.left = kill_after
        try:
            self.run(self.crew.settle(worker))
        except Killed:
            self.crew = Crew(self.world)
        self.world.hand.left = None
        self._nothing_lost(before)

    @rule()
    def work_all(self) -> None:
        before = self.world.good_indices()
        self.run(self.crew.round())
        self._nothing_lost(before)

    @rule(seconds=st.sampled_from([30.0, 400.0, 4000.0, 90_000.0]), alive=st.booleans())
    def time_passes(self, seconds: float, alive: bool) -> None:
        if alive and self.world.session in self.world.beats:
            self.world.beats[self.world.session] += 1
        self.run(self.world.clock.advance(seconds))

    @rule(seconds=st.sampled_from([-1e6, 1e6]))
    def clock_jumps(self, seconds: float) -> None:
        self.world.clock.jump(seconds)

    def _nothing_lost(self, before: dict[BlockId, set[int]]) -> None:
        after = self.world.good_indices()
        for block, indices in before.items():
            assert indices <= after.get(block, indices), f"block {block.hex()[:8]} lost {indices - after[block]}"

    @invariant()
    def everything_published_can_be_read(self) -> None:
        for content in self.world.living().values():
            for ref in content.refs:
                assert len(self.world.holders(ref)) >= ref.code.k

    def teardown(self) -> None:
        self.run(self._ends_well())
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()

    async def _ends_well(self) -> None:
        world = self.world
        for drive in world.drives.values():
            drive.silent = False
        world.in_flight.clear()
        before = world.good_indices()
        await Crew(world).rest()
        self._nothing_lost(before)
        assert len(world.layouts.all) == 1
        assert set(world.rows) == set(world.living())
        held = {key for drive in world.drives.values() for key in drive.held()}
        living = {ref.id for content in world.rows.values() for ref in content.refs}
        assert {key.block for key in held} == living
        for content in world.rows.values():
            for ref in content.refs:
                assert world.is_whole(ref)
        assert not world.outbox


TestUpkeep = Upkeep.TestCase
TestUpkeep.settings = settings(
    max_examples=40, stateful_step_count=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
