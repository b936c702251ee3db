"""The directory drive against a dict: puts, deletes, compaction, restarts, lost indexes, in any order."""

import asyncio
import shutil

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from holdfast.core.limits import KIB
from holdfast.drives.directory import DirectoryDrive, DriveSizes
from holdfast.drives.interface import Fragment, FragmentKey
from holdfast.testing.drive_suite import assert_holds, key_of, list_all, make_fragment
from holdfast.testing.shared_memory import in_memory
from tests.unit.drives.opened import Opened

SIZES = DriveSizes(segment=64 * KIB, allocation=16 * KIB, index_map=64 * KIB, reserve=16 * KIB)
KEYS = 8

numbers = st.integers(0, KEYS - 1)


class DriveMachine(RuleBasedStateMachine):
    """Two handles on one drive, as two workers have it."""

    def __init__(self) -> None:
        super().__init__()
        self.path = in_memory("drive")
        self.runner = asyncio.Runner()
        self.opened = Opened(self.path / "drive", sizes=SIZES)
        self.oracle: dict[FragmentKey, Fragment] = {}
        self.turn = 0
        self.drives: list[DirectoryDrive] = []
        self.open_both()

    def open_both(self) -> None:
        self.drives = [self.runner.run(self.opened.open()) for _ in range(2)]

    @rule(which=st.integers(0, 1), chosen=st.lists(numbers, min_size=1, max_size=4))
    def put(self, which: int, chosen: list[int]) -> None:
        self.turn += 1
        fragments = [make_fragment(number, 1500 * number, tag=b"%d" % self.turn) for number in chosen]
        self.runner.run(self.drives[which].put(fragments))
        self.oracle.update({fragment.key: fragment for fragment in fragments})

    @rule(which=st.integers(0, 1), chosen=st.lists(numbers, min_size=1, max_size=4))
    def delete(self, which: int, chosen: list[int]) -> None:
        keys = [key_of(number) for number in chosen]
        self.runner.run(self.drives[which].delete(keys))
        for key in keys:
            self.oracle.pop(key, None)

    @rule(which=st.integers(0, 1), share=st.sampled_from([0.0, 0.1, 0.5]))
    def compact(self, which: int, share: float) -> None:
        self.runner.run(self.drives[which].compact(budget_bytes=20_000, wasted_share=share))

    @rule(lose_index=st.booleans())
    def restart(self, lose_index: bool) -> None:
        self.runner.run(self.opened.close())
        if lose_index:
            shutil.rmtree(self.opened.path / "index")
        self.open_both()

    @rule()
    def lose_index(self) -> None:
        shutil.rmtree(self.opened.path / "index")

    @invariant()
    def both_agree_with_the_oracle(self) -> None:
        for drive in self.drives:
            assert self.runner.run(list_all(drive, 3)) == sorted(
                (fragment.key, len(fragment.payload), fragment.tag) for fragment in self.oracle.values()
            )
            for fragment in self.oracle.values():
                self.runner.run(assert_holds(drive, fragment))

    def teardown(self) -> None:
        self.runner.run(self.opened.close())
        self.runner.close()
        shutil.rmtree(self.path)


DriveMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=25, deadline=None)
TestDriveMachine = DriveMachine.TestCase
