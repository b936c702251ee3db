"""What a reader does when its environment is sound and cannot be read just now."""

import asyncio
import multiprocessing
import os
from pathlib import Path
from typing import Any

import lmdb
import pytest

from holdfast.drives.directory import open_drive
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.drive_suite import assert_holds, key_of, make_fragment
from tests.unit.drives.opened import SMALL, STORE, Opened
from tests.unit.drives.test_trust import environment_of
from tests.unit.drives.worker import SystemRandomness

# Their rows need a far larger map than an index of a test begins with.
FRAGMENTS_COUNT = 2000


def put_many(directory: Path) -> None:
    async def work() -> None:
        drive = await open_drive(directory, disk=OsDisk(), randomness=SystemRandomness(), store=STORE, sizes=SMALL)
        await drive.put([make_fragment(number, 10) for number in range(FRAGMENTS_COUNT)])
        os._exit(0)

    asyncio.run(work())


async def test_an_index_that_another_process_made_longer_is_read_on(opened: Opened) -> None:
    drive = await opened.open()
    before = environment_of(opened.path)
    child = multiprocessing.get_context("spawn").Process(target=put_many, args=(opened.path,))
    child.start()
    await asyncio.to_thread(child.join)
    assert child.exitcode == 0
    with pytest.raises(BlockingIOError):
        drive.get_at_once(key_of(0))  # It may be on the event loop, and does not wait for writers to let the map grow.
    assert await drive.has([key_of(0), key_of(FRAGMENTS_COUNT - 1)]) == [True, True]
    await assert_holds(drive, make_fragment(7, 10))
    assert environment_of(opened.path) == before


class _Crowded:
    """An LMDB environment whose slots are all taken, until those of the dead are freed."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.is_full = True

    def begin(self, **options: Any) -> Any:
        if self.is_full:
            raise lmdb.ReadersFullError("no slot")
        return self.real.begin(**options)

    def reader_check(self) -> int:
        self.is_full = False
        return int(self.real.reader_check())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


async def test_slots_of_readers_that_died_are_freed(opened: Opened) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(0)])
    before = environment_of(opened.path)
    environment = drive._index._trusted.current
    environment._lmdb = _Crowded(environment._lmdb)  # type: ignore[assignment]
    assert await drive.has([key_of(0)]) == [True]
    assert environment_of(opened.path) == before
