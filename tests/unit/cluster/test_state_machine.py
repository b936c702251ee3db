"""Blocks through random trouble, against a dict.

Drives go down, come back, fill up, dawdle, lose and rot fragments; drives are added and drained; blocks are written,
read, repaired. Trouble is kept within what the code promises to survive, so that every acknowledged block must be
readable at all times; and whatever is read, at any time, is what was written.

What is promised, for a block of k+m that was acknowledged: it has at least min(n, k+1) fragments, all n once it was
repaired with every drive there. `spoiled` counts what the machine took from a block since; a drive that is down, or was
down when the block was written, counts as well.
"""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.core.errors import Corrupt, NodeDown, NotEnoughFragments, Unavailable
from holdfast.core.ids import BlockId
from holdfast.drives.interface import FragmentKey
from holdfast.erasure import BlockRef, Code, copies, encode, erasure
from holdfast.placement import Layout, LayoutDrive, add
from holdfast.testing.clock import FakeClock
from tests.unit.cluster.fakes import FakeDrive, Group, drive_id
from tests.unit.erasure.sample import sealed

T = TypeVar("T")

CODES = [erasure(4, 2), erasure(2, 2), copies(3), copies(2)]
DRIVES = 7
DRIVES_MAX = 9


class ClusterMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.model: dict[BlockRef, bytes] = {}
        self.layouts = 1
        self.seed = 0

    def teardown(self) -> None:
        self.loop.close()

    def do(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run to the end, time passing while it waits."""

        async def through() -> T:
            task = asyncio.ensure_future(coroutine)
            for _ in range(1000):
                await self.clock.advance(0.0)
                if task.done():
                    break
                await self.clock.advance(0.1)
            assert task.done()
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left or task.exception() is not None, f"left behind: {left}"
            return await task

        return self.loop.run_until_complete(through())

    @initialize()
    def start(self) -> None:
        self.group = Group(DRIVES, self.clock)

    # --- what is left of a block ---

    def good(self, ref: BlockRef) -> set[int]:
        """Indexes of fragments that are sound on a drive that answers."""
        found: set[int] = set()
        for drive in self.group.drives.values():
            if drive.error is None:
                keys = [FragmentKey(ref.id, index) for index in range(ref.code.width)]
                found |= {key.index for key in keys if key in drive.memory._fragments and key not in drive.rot}
        return found

    def can_spare(self, drive: FakeDrive, block: BlockId | None = None) -> bool:
        """Whether every block stays readable when what `drive` holds (of one block) is gone."""
        was, drive.error = drive.error, NodeDown
        try:
            refs = [ref for ref in self.model if block is None or ref.id == block]
            return all(len(self.good(ref)) >= ref.code.k for ref in refs)
        finally:
            drive.error = was

    # --- trouble ---

    @rule(number=st.integers(0, DRIVES_MAX - 1))
    def goes_down(self, number: int) -> None:
        drive = self.group.drives.get(drive_id(number))
        if drive is not None and self.can_spare(drive):
            drive.error = NodeDown

    @rule(number=st.integers(0, DRIVES_MAX - 1))
    def comes_back(self, number: int) -> None:
        drive = self.group.drives.get(drive_id(number))
        if drive is not None:
            drive.error, drive.is_full, drive.seconds = None, False, 0.0

    @rule(number=st.integers(0, DRIVES_MAX - 1), is_full=st.booleans())
    def fills_up(self, number: int, is_full: bool) -> None:
        drive = self.group.drives.get(drive_id(number))
        if drive is not None:
            drive.is_full = is_full

    @rule(number=st.integers(0, DRIVES_MAX - 1), seconds=st.sampled_from([0.01, 0.3, 3.0]))
    def dawdles(self, number: int, seconds: float) -> None:
        drive = self.group.drives.get(drive_id(number))
        if drive is not None:
            drive.seconds = seconds

    @rule(number=st.integers(0, DRIVES_MAX - 1), is_cached=st.booleans())
    def has_it_in_memory(self, number: int, is_cached: bool) -> None:
        drive = self.group.drives.get(drive_id(number))
        if drive is not None:
            drive.is_cached = is_cached

    @precondition(lambda self: self.model)
    @rule(data=st.data(), is_noticed=st.none() | st.booleans())
    def spoils(self, data: st.DataObject, is_noticed: bool | None) -> None:
        """One fragment rots (noticed by the drive's checksum or not) or is lost (None)."""
        ref = data.draw(st.sampled_from(list(self.model)))
        drive = data.draw(st.sampled_from(list(self.group.drives.values())))
        keys = [key for key in drive.memory._fragments if key.block == ref.id]
        if keys and self.can_spare(drive, ref.id):
            if is_noticed is None:
                self.loop.run_until_complete(drive.memory.delete(keys))
            else:
                drive.rot |= dict.fromkeys(keys, is_noticed)

    # --- work ---

    @rule(code=st.sampled_from(CODES), length=st.sampled_from([1, 500, 70_000, 200_000]))
    def put(self, code: Code, length: int) -> None:
        self.seed += 1
        data = sealed(length, self.seed)
        block = encode(data, code)
        try:
            written = self.do(self.group.cluster.put(block, b"tag"))
        except Unavailable:
            return
        self.model[block.ref] = data
        held = {
            index: drive_of
            for drive_of, drive in self.group.drives.items()
            for index in self.loop.run_until_complete(drive.holds(block.ref))
        }
        assert len(held) >= code.write_quorum
        at_home = set(range(code.width)) - set(written.missing)
        stat_homes = self.group.cluster._places._tables[self.newest.hash, code.width].homes(block.ref.id)
        assert all(held[index] == stat_homes[index] for index in at_home)
        assert len(set(held.values())) == len(held), "no drive holds two fragments of a block"

    @property
    def newest(self) -> Layout:
        return next(iter(self.group.cluster._places._layouts.values()))

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def get(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(list(self.model)))
        assert bytes(self.do(self.group.cluster.get(ref, bytes))) == self.model[ref]

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def repair(self, data: st.DataObject) -> None:
        ref = data.draw(st.sampled_from(list(self.model)))
        before = self.good(ref)
        healed = self.do(self.group.healer.heal(ref, b"tag"))
        assert self.good(ref) >= before, "a repair never makes it worse"
        assert not healed.lost
        assert not healed.whole or len(self.good(ref)) == ref.code.width

    @precondition(lambda self: self.model)
    @rule()
    def drain_the_outbox(self) -> None:
        """Every drive comes back, every block is repaired: now any m drives may go."""
        for drive in self.group.drives.values():
            drive.error, drive.is_full, drive.seconds = None, False, 0.0
        for ref, data in self.model.items():
            assert self.do(self.group.healer.heal(ref, b"tag")).whole
            assert self.do(self.group.is_whole(ref))
            homes = self.do(self.group.homes(ref))
            for first in range(ref.code.width):
                lost = [homes[(first + i) % ref.code.width] for i in range(ref.code.m)]
                for drive in lost:
                    drive.error = NodeDown
                assert bytes(self.do(self.group.cluster.get(ref, bytes))) == data
                for drive in lost:
                    drive.error = None
        self.group.cluster.use([self.newest])
        self.layouts = 1

    @precondition(lambda self: self.layouts < 3 and len(self.group.drives) < DRIVES_MAX)
    @rule()
    def gets_another_drive(self) -> None:
        number = len(self.group.drives)
        self.group.drives[drive_id(number)] = FakeDrive(drive_id(number), self.clock)
        layout = add(self.newest, [LayoutDrive(drive_id(number), 10**12, f"n{number}")])
        self.group.cluster.use([layout, *self.group.cluster._places._layouts.values()])
        self.layouts += 1

    @rule()
    def asks_for_what_never_was(self) -> None:
        ref = encode(b"never written", erasure(2, 2)).ref
        try:
            self.do(self.group.cluster.get(ref, bytes))
        except NotEnoughFragments:
            return
        except Corrupt:
            raise AssertionError("nothing was read that could be wrong") from None
        raise AssertionError("something was read that never was")

    @invariant()
    def no_call_is_left_on_any_drive(self) -> None:
        if hasattr(self, "group"):
            assert self.group.running == 0


TestCluster = ClusterMachine.TestCase
TestCluster.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
