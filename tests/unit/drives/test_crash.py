"""Power cuts: at every sync, with what was not synced lost, kept or torn, nothing acknowledged is lost or undone.

The drive runs over a disk that records; each test replays its recording, cut off at every boundary, into a directory
of its own, opens a drive there and compares with what had been acknowledged by then.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from holdfast.core.errors import NotFound
from holdfast.core.limits import KIB
from holdfast.drives.directory import DirectoryDrive, DriveSizes
from holdfast.drives.interface import Fragment, FragmentKey
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.drive_suite import make_fragment
from holdfast.testing.faulty_disk import RecordingDisk, Survival, keep_all, lose_all, tear
from holdfast.testing.shared_memory import in_memory
from tests.unit.drives.opened import Opened

SIZES = DriveSizes(segment=96 * KIB, allocation=32 * KIB, index_map=64 * KIB, reserve=16 * KIB)


@dataclass(frozen=True, slots=True)
class Call:
    """A call that ran from one moment to another; `fragment` None deleted."""

    key: FragmentKey
    fragment: Fragment | None
    began: int
    ended: int


class Recorded:
    """A drive under a recorder, and what was acknowledged when."""

    def __init__(self, root: Path) -> None:
        self.disk = RecordingDisk(OsDisk(), root)
        self.opened = Opened(root, sizes=SIZES, disk=self.disk)
        self.calls: list[Call] = []
        self.drive: DirectoryDrive
        self.ready = 0

    async def open(self) -> None:
        self.drive = await self.opened.open()
        self.ready = self.ready or self.disk.moment()

    async def put(self, number: int, size: int = 5000, tag: bytes = b"tag") -> None:
        fragment = make_fragment(number, size, tag=tag)
        began = self.disk.moment()
        await self.drive.put([fragment])
        self.calls.append(Call(fragment.key, fragment, began, self.disk.moment()))

    async def delete(self, number: int) -> None:
        key = make_fragment(number).key
        began = self.disk.moment()
        await self.drive.delete([key])
        self.calls.append(Call(key, None, began, self.disk.moment()))

    def possible(self, moment: int) -> dict[FragmentKey, list[Fragment | None]]:
        """What each key may be after a cut at `moment`: the last acknowledged, or what was in flight since."""
        outcomes: dict[FragmentKey, list[Fragment | None]] = {}
        for call in self.calls:
            if call.ended <= moment:
                outcomes[call.key] = [call.fragment]
            elif call.began < moment:
                outcomes.setdefault(call.key, [None]).append(call.fragment)
        return outcomes


@pytest.fixture
def scratch() -> Iterator[Path]:
    """In memory where there is such a place: hundreds of drives are opened here."""
    path = in_memory("drives")
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def recorded(scratch: Path) -> AsyncIterator[Recorded]:
    recorded = Recorded(scratch / "recorded")
    await recorded.open()
    yield recorded
    await recorded.opened.close()


async def check(recorded: Recorded, moment: int, target: Path, survival: Survival) -> None:
    """Open what a cut left, and compare; then it must work like any drive, and a second rebuild must agree."""
    recorded.disk.recording.materialise(moment, target, survival)
    possible = recorded.possible(moment)
    opened = Opened(target, sizes=SIZES, create=False, seed=moment)
    try:
        drive = await opened.open()
        found = await read_all(drive, possible)
        await drive.put([make_fragment(1000)])
        await opened.close()
        shutil.rmtree(target / "index")
        drive = await opened.open()
        assert await read_all(drive, possible) == found, f"moment {moment}: rebuilt differently"
        assert (await drive.get(make_fragment(1000).key)).data == make_fragment(1000).payload
    finally:
        await opened.close()
        shutil.rmtree(target)


async def read_all(
    drive: DirectoryDrive, possible: dict[FragmentKey, list[Fragment | None]]
) -> dict[FragmentKey, Fragment | None]:
    found: dict[FragmentKey, Fragment | None] = {}
    for key, outcomes in possible.items():
        try:
            part = await drive.get(key)
            found[key] = Fragment(key, part.commitment, part.leaves, part.tag, bytes(part.data))
        except NotFound:
            found[key] = None
        assert found[key] in outcomes, f"{key.block.hex()[:8]}: {found[key]} is none of {outcomes}"
    return found


async def cut_everywhere(recorded: Recorded, scratch: Path, *, at_most: int = 30) -> None:
    moments = [moment for moment in recorded.disk.recording.boundaries() if moment >= recorded.ready]
    step = max(1, -(-len(moments) // at_most))
    survivals: list[Callable[[int], Survival]] = [lambda _: lose_all, lambda _: keep_all, tear]
    for moment in moments[::step] + moments[-1:]:
        for number, survival in enumerate(survivals):
            await check(recorded, moment, scratch / f"cut-{moment}-{number}", survival(moment))


async def test_puts_and_deletes_survive(recorded: Recorded, scratch: Path) -> None:
    for number in range(6):
        await recorded.put(number, 3000 * number)
    for number in range(3):
        await recorded.delete(number)
    await recorded.put(1, 3000, tag=b"again")
    await cut_everywhere(recorded, scratch)


async def test_group_commits_survive(recorded: Recorded, scratch: Path) -> None:
    for first in range(0, 30, 10):
        await asyncio.gather(*(recorded.put(number, 100 * number) for number in range(first, first + 10)))
        await asyncio.gather(*(recorded.delete(number) for number in range(first, first + 5)))
    await cut_everywhere(recorded, scratch)


async def test_a_segment_that_rolls_survives(recorded: Recorded, scratch: Path) -> None:
    for number in range(12):
        await recorded.put(number, 20_000)
    assert len(recorded.opened.segments()) >= 3
    await cut_everywhere(recorded, scratch)


async def test_compaction_survives(recorded: Recorded, scratch: Path) -> None:
    for number in range(12):
        await recorded.put(number, 20_000)
    for number in (0, 1, 3, 4, 6, 7):
        await recorded.delete(number)
    before = set(recorded.opened.segments())
    compactor = asyncio.create_task(compact_all(recorded.drive))
    await recorded.put(20, 10_000)
    await recorded.delete(2)
    await recorded.put(5, 20_000, tag=b"again")
    await compactor
    assert not before <= set(recorded.opened.segments())
    await cut_everywhere(recorded, scratch)


async def test_deleted_stays_deleted_when_its_tombstone_moves(recorded: Recorded, scratch: Path) -> None:
    # The fragment and its tombstone lie in different segments, and the tombstone's is compacted first.
    await recorded.put(0, 60_000)
    await recorded.put(1, 30_000)
    await recorded.delete(0)
    for number in range(2, 6):
        await recorded.put(number, 30_000)
        await recorded.delete(number)
    await compact_all(recorded.drive)
    await recorded.delete(1)
    await compact_all(recorded.drive)
    await cut_everywhere(recorded, scratch)


async def test_a_restart_survives(recorded: Recorded, scratch: Path) -> None:
    for number in range(3):
        await recorded.put(number)
    await recorded.opened.close()
    await recorded.open()
    await recorded.delete(0)
    await recorded.put(1, tag=b"again")
    shutil.rmtree(recorded.opened.path / "index")
    await recorded.put(3)
    await recorded.delete(2)
    await cut_everywhere(recorded, scratch)


async def compact_all(drive: DirectoryDrive) -> None:
    while (await drive.compact(budget_bytes=30_000, wasted_share=0.2)).segment is not None:
        pass
