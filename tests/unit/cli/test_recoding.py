"""`recode` beside an upkeep process that is at work on an older order."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import pytest

from holdfast.cli import recoding
from holdfast.cli.output import Output
from holdfast.cli.system import SystemClock
from holdfast.cli.turns import RECODING, InTurn
from holdfast.core.ids import ContentId
from holdfast.erasure import Code, copies
from holdfast.upkeep.interface import Recoded
from holdfast.upkeep.recode import Recoder, order
from tests.unit.upkeep.world import World


async def test_a_new_order_is_not_put_back_by_a_step_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was: the command then carried out the old order, and said that it had carried out its own."""
    world = World(6)
    for _ in range(3):
        await world.create(copies(2))
    wrote = world.recode
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(content: ContentId, code: Code) -> Recoded:
        begun.set()
        await goes_on.wait()
        return await wrote(content, code)

    monkeypatch.setattr(world, "recode", slow)
    clock = SystemClock()
    await order(world, copies(3), clock)
    upkeep = asyncio.create_task(InTurn(Recoder(world, clock), tmp_path, RECODING, clock).work())
    await begun.wait()
    monkeypatch.setattr(recoding, "chores_of", lambda opened: SimpleNamespace(catalogue=world))
    opened = SimpleNamespace(code=copies(4), clock=clock, run=tmp_path)
    command = asyncio.create_task(recoding.recode(opened, Output(as_json=True)))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    goes_on.set()
    await upkeep
    assert await command
    assert {content.code for content in world.living().values()} == {copies(4)}
