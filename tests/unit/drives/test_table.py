"""LMDB's table of locks, written over while it is mapped: nobody waits for a lock that nobody will give up."""

import asyncio
import multiprocessing
import os
from pathlib import Path

from holdfast.drives.directory import open_drive
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.drive_suite import assert_holds, make_fragment
from tests.unit.drives.opened import SMALL, STORE, Opened
from tests.unit.drives.worker import SystemRandomness

# Far more than a few puts take, and far less than for ever.
ANSWER_SECONDS = 60

REBUILT_STATUS = 3


def put_around_it(directory: Path) -> None:
    async def work() -> None:
        drive = await open_drive(directory, disk=OsDisk(), randomness=SystemRandomness(), store=STORE, sizes=SMALL)
        await drive.put([make_fragment(1, 100)])
        [table] = (directory / "index").glob("*/lock.mdb")
        inode = table.stat().st_ino
        with table.open("r+b") as file:
            file.write(b"\1" * table.stat().st_size)
        await drive.put([make_fragment(2, 100)])
        for number in (1, 2):
            await assert_holds(drive, make_fragment(number, 100))
        [table] = (directory / "index").glob("*/lock.mdb")
        os._exit(REBUILT_STATUS if table.stat().st_ino != inode else 0)

    asyncio.run(work())


def test_locks_that_were_written_over_are_not_waited_for(opened: Opened) -> None:
    child = multiprocessing.get_context("spawn").Process(target=put_around_it, args=(opened.path,))
    child.start()
    child.join(ANSWER_SECONDS)
    child.kill()
    child.join()
    assert child.exitcode == REBUILT_STATUS


async def test_the_table_has_no_holes(opened: Opened) -> None:
    await opened.open()
    [table] = (opened.path / "index").glob("*/lock.mdb")
    status = table.stat()
    assert status.st_blocks * 512 >= status.st_size
