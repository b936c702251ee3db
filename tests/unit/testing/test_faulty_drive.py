"""The faulty drive: good until asked otherwise, and then exactly as bad as asked."""

import asyncio

import pytest

from holdfast.core.errors import Full, NodeDown, NotFound
from holdfast.core.ids import DriveId
from holdfast.core.limits import MIB
from holdfast.drives.memory import MemoryDrive
from holdfast.testing.drive_suite import DriveSuite, assert_holds, key_of, make_fragment, refusal
from holdfast.testing.faulty_drive import FaultyDrive


@pytest.fixture
def drive() -> FaultyDrive:
    return FaultyDrive(MemoryDrive(DriveId(bytes(16)), capacity=64 * MIB))


class TestFaultyDriveWithoutTrouble(DriveSuite):
    @pytest.fixture
    def drive(self, drive: FaultyDrive) -> FaultyDrive:
        return drive


async def test_down_and_back(drive: FaultyDrive) -> None:
    await drive.put([make_fragment(1)])
    drive.go_down()
    for call in (drive.get(key_of(1)), drive.put([make_fragment(2)]), drive.list(), drive.usage(), drive.delete([])):
        await refusal(NodeDown, call)
    drive.recover()
    await assert_holds(drive, make_fragment(1))
    assert await drive.has([key_of(2)]) == [False]


async def test_some_methods_after_some_calls(drive: FaultyDrive) -> None:
    drive.trouble.error = Full("full")
    drive.trouble.only = frozenset({"put"})
    drive.trouble.skip = 1
    await drive.put([make_fragment(1)])
    await refusal(Full, drive.put([make_fragment(2)]))
    assert await drive.has([key_of(1), key_of(2)]) == [True, False]
    assert drive.calls == {"put": 2, "has": 1}


async def test_a_lost_reply(drive: FaultyDrive) -> None:
    drive.trouble.error = NodeDown("cut off")
    drive.trouble.after = True
    await refusal(NodeDown, drive.put([make_fragment(1)]))
    drive.recover()
    await assert_holds(drive, make_fragment(1))


async def test_as_slow_as_wanted(drive: FaultyDrive) -> None:
    drive.trouble.gate = asyncio.Event()
    put = asyncio.create_task(drive.put([make_fragment(1)]))
    await asyncio.sleep(0.01)
    assert not put.done()
    drive.trouble.gate.set()
    await put


async def test_corrupt_and_lost(drive: FaultyDrive) -> None:
    await drive.put([make_fragment(1), make_fragment(2)])
    drive.trouble.corrupt.add(key_of(1))
    part = await drive.get(key_of(1))
    assert part.data != make_fragment(1).payload
    assert len(part.data) == len(make_fragment(1).payload)
    drive.trouble.lost.add(key_of(2))
    await refusal(NotFound, drive.get(key_of(2)))
    assert [info.key for info in await drive.list()] == [key_of(1)]
