"""Power cuts: whatever the disks lost, tore or reordered, what was acknowledged is there and nothing needs a hand."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.disk import Disk
from holdfast.core.errors import AlreadyExists, Corrupt, NotFound, Unavailable
from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Put, Row
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.mirror import Mirror, Sizes
from holdfast.meta.local.setup import create_local
from holdfast.testing.faulty_disk import RecordingDisk, Survival, keep_all, lose_all, tear
from holdfast.testing.meta_suite import scan_all, token
from tests.unit.meta.stores import STORE, Place

TINY = Sizes(segment=24 * 1024, reserve=4096, log=96 * 1024)


class History:
    """What was committed, and how much the disk had seen when it was acknowledged."""

    def __init__(self, disk: RecordingDisk) -> None:
        self._disk = disk
        self.acknowledged: list[int] = []

    async def commit(self, meta: LocalMeta, count: int, size: int = 700) -> None:
        for _ in range(count):
            number = len(self.acknowledged)
            await meta.commit([Put(b"%06d" % number, b"v" * size)], token=token(number))
            self.acknowledged.append(self._disk.moment())

    def owed(self, moment: int) -> int:
        """How many commits had been acknowledged by then; they were made one after the other."""
        return sum(acknowledged <= moment for acknowledged in self.acknowledged)


async def commit_and_roll(place: Place, disk: Disk, history: History) -> None:
    """Records of all sizes, over several segments."""
    async with await place.open(disk, TINY) as meta:
        await history.commit(meta, 8)
        await history.commit(meta, 2, 60_000)
        await history.commit(meta, 4)


async def checkpoint_and_forget(place: Place, disk: Disk, history: History) -> None:
    """Checkpoints, and the log that they make needless, twice over."""
    async with await place.open(disk, TINY) as meta:
        for _ in range(4):
            await history.commit(meta, 8)
            await meta.checkpoint()


async def restart(place: Place, disk: Disk, history: History) -> None:
    """Orderly ends, which leave a view that may be believed."""
    for _ in range(3):
        async with await place.open(disk, TINY) as meta:
            await history.commit(meta, 3)


async def change_drives(place: Place, disk: Disk, history: History) -> None:
    """The roster grows and shrinks, and with it the mirrors change."""
    drives = place.drives
    async with await place.open(disk, TINY) as meta:
        await history.commit(meta, 3)
        fewer = dict(list(drives.items())[1:])
        await meta.set_drives(fewer, losses=1)
        await history.commit(meta, 3)
        await meta.set_drives(drives, losses=1, metacopies=3)
        await history.commit(meta, 3)


async def work_at_once(place: Place, disk: Disk, history: History) -> None:
    """Commits while checkpoints and verification run."""
    async with await place.open(disk, TINY) as meta:
        await history.commit(meta, 5)
        await asyncio.gather(history.commit(meta, 12), meta.checkpoint(), meta.verify())
        await asyncio.gather(history.commit(meta, 12), meta.checkpoint(), meta.mend())


Scenario = Callable[[Place, Disk, History], Coroutine[Any, Any, None]]
SCENARIOS: list[Scenario] = [commit_and_roll, checkpoint_and_forget, restart, work_at_once]


@pytest.mark.parametrize("most", [10, pytest.param(1 << 30, marks=pytest.mark.soak)])
@pytest.mark.parametrize(
    ("scenario", "drives", "losses"),
    [(scenario, *layout) for scenario in SCENARIOS for layout in ((1, 0), (4, 1))] + [(change_drives, 4, 1)],
)
async def test_power_is_cut(scenario: Scenario, drives: int, losses: int, most: int, tmp_path: Path) -> None:
    await run_and_cut(scenario, drives, losses, most, tmp_path)


async def test_a_skipped_sync_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof that these tests can fail."""
    monkeypatch.setattr(Mirror, "sync", lambda mirror: None)
    with pytest.raises((AssertionError, Corrupt)):
        await run_and_cut(commit_and_roll, 1, 0, 10, tmp_path)


async def run_and_cut(scenario: Scenario, drives: int, losses: int, most: int, tmp_path: Path) -> None:
    """Run a scenario, then start from what a cut left at `most` of its boundaries."""
    place = Place(tmp_path / "store", drives, losses)
    disk = RecordingDisk(OsDisk(), place.root)
    create_local(place.drives, store=STORE, losses=losses, disk=disk, sizes=TINY)
    created = disk.moment()
    history = History(disk)
    await scenario(place, disk, history)
    moments = [moment for moment in disk.recording.boundaries() if moment >= created]
    step = max(1, len(moments) // most)
    for number, moment in enumerate(moments[::step]):
        survivals: list[Survival] = [lose_all, keep_all] if number % 4 == 0 else []
        for survival in [*survivals, tear(number), tear(number, 0.9)]:
            await check_cut(disk, moment, survival, history, tmp_path / "cut", place)


async def check_cut(
    disk: RecordingDisk, moment: int, survival: Survival, history: History, target: Path, place: Place
) -> None:
    number = len(list(target.parent.glob("cut*")))
    left = Place(target.with_name(f"cut{number}"), place.count, place.losses)
    disk.recording.materialise(moment, left.root, survival)
    owed = history.owed(moment)
    async with await left.open(sizes=TINY) as meta:
        rows = await scan_all(meta, KeyRange(), limit=1000)
        found = [int(row.key) for row in rows if isinstance(row, Row)]
        assert found == list(range(len(found))), "a commit is missing in the middle"
        assert owed <= len(found) <= owed + 1, f"cut at {moment}: {owed} were acknowledged, {len(found)} are there"
        await meta.commit([Put(b"after", b"")], token=token(1))
        assert [finding for finding in await meta.verify() if not finding.repaired] == []


async def test_power_is_cut_while_a_store_is_made(tmp_path: Path) -> None:
    place = Place(tmp_path / "store", 4, 1)
    disk = RecordingDisk(OsDisk(), place.root)
    create_local(place.drives, store=STORE, losses=1, disk=disk, sizes=TINY)
    for number, moment in enumerate(disk.recording.boundaries()):
        left = Place(tmp_path / f"cut{number}", 4, 1)
        disk.recording.materialise(moment, left.root, tear(number))
        with contextlib.suppress(NotFound, Unavailable):
            async with await left.open(sizes=TINY) as meta:
                assert await scan_all(meta, KeyRange(), limit=10) == []
        with contextlib.suppress(AlreadyExists):
            create_local(left.drives, store=STORE, losses=1, disk=OsDisk(), sizes=TINY)
        async with await left.open(sizes=TINY) as meta:
            await meta.commit([Put(b"key", b"")], token=token(1))
