"""Processes that die of the index they read: they come back, and it is made again."""

import asyncio
import multiprocessing
import os
import signal
from pathlib import Path

from holdfast.drives.directory import open_drive
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.local.attendance import RunAttendance
from holdfast.testing.drive_suite import assert_holds, key_of, make_fragment
from holdfast.testing.faulty_disk import scribble_over_rows
from tests.unit.drives.opened import SMALL, STORE, Opened
from tests.unit.drives.worker import SystemRandomness

FRAGMENTS_COUNT = 200


def read_all(directory: Path, run: Path) -> None:
    """Open the drive and read every fragment."""

    async def work() -> None:
        drive = await open_drive(
            directory,
            disk=OsDisk(),
            randomness=SystemRandomness(),
            store=STORE,
            sizes=SMALL,
            attendance=RunAttendance(run),
        )
        for number in range(FRAGMENTS_COUNT):
            await assert_holds(drive, make_fragment(number, 100))
        # As when it is killed: nothing is closed in order.
        os._exit(0)

    asyncio.run(work())


async def test_who_dies_of_an_index_does_not_die_of_it_again_and_again(opened: Opened, tmp_path: Path) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(number, 100) for number in range(FRAGMENTS_COUNT)])
    assert await drive.has([key_of(0)]) == [True]
    await opened.close()
    [data] = (opened.path / "index").glob("*/data.mdb")
    scribble_over_rows(data, longer_than=8)
    codes: list[int | None] = []
    while not codes or (codes[-1] != 0 and len(codes) < 5):
        child = multiprocessing.get_context("spawn").Process(target=read_all, args=(opened.path, tmp_path / "run"))
        child.start()
        await asyncio.to_thread(child.join, 30)
        codes.append(child.exitcode)
    # Behind the end of the file it is the one, behind the end of the map the other.
    assert set(codes[:-1]) <= {-signal.SIGBUS, -signal.SIGSEGV}
    assert len(codes) == 3
    assert codes[-1] == 0
