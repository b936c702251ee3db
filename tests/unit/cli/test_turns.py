"""One process at a time moves fragments; the kernel takes the turn from whoever dies."""

import asyncio
import fcntl
import os
from pathlib import Path

from holdfast.cli.system import SystemClock
from holdfast.cli.turns import MOVING, RECODING, InTurn, turn
from holdfast.upkeep.worker import State


class Counting:
    """A worker that notices company."""

    name = "counting"
    tranquility = 0.0
    inside = 0
    most = 0

    def status(self) -> str:
        return ""

    async def work(self) -> State:
        Counting.inside += 1
        Counting.most = max(Counting.most, Counting.inside)
        await asyncio.sleep(0.005)
        Counting.inside -= 1
        return State.IDLE

    async def wait_for_work(self) -> None:
        return None


async def test_workers_take_turns(tmp_path: Path) -> None:
    workers = [InTurn(Counting(), tmp_path, MOVING, SystemClock()) for _ in range(5)]
    await asyncio.gather(*(worker.work() for worker in workers))
    assert Counting.most == 1
    Counting.most = 0
    await asyncio.gather(*(Counting().work() for _ in range(5)))
    assert Counting.most == 5


async def test_a_turn_is_waited_for_and_ends_with_its_holder(tmp_path: Path) -> None:
    other = os.open(tmp_path / MOVING, os.O_RDWR | os.O_CREAT)
    fcntl.flock(other, fcntl.LOCK_EX)
    waiting = asyncio.create_task(InTurn(Counting(), tmp_path, MOVING, SystemClock()).work())
    async with turn(tmp_path, RECODING, SystemClock()):
        await asyncio.sleep(0.05)
    assert not waiting.done()
    os.close(other)
    assert await asyncio.wait_for(waiting, 60) is State.IDLE


async def test_who_is_cancelled_while_waiting_leaves_nothing(tmp_path: Path) -> None:
    async with turn(tmp_path, MOVING, SystemClock()):
        waiting = asyncio.create_task(InTurn(Counting(), tmp_path, MOVING, SystemClock()).work())
        await asyncio.sleep(0.02)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(60), turn(tmp_path, MOVING, SystemClock()):
        pass
