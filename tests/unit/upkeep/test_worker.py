"""The loop, the throttle, and the wake."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from holdfast.core.errors import HoldfastError, NodeDown
from holdfast.testing.clock import FakeClock
from holdfast.upkeep.worker import (
    BACKOFF_MAX_SECONDS,
    PAUSE_MAX_SECONDS,
    Runner,
    State,
    Wake,
    backoff,
    pause,
    run_all,
    settle,
)


class Scripted:
    """Does what its script says, one entry a step: seconds of work, an error, or a state."""

    name = "scripted"
    tranquility = 0.0

    def __init__(self, clock: FakeClock, *script: float | Exception | State) -> None:
        self.clock = clock
        self.script = list(script)
        self.waits = 0

    def status(self) -> str:
        return f"{len(self.script)} to go"

    async def work(self) -> State:
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        if isinstance(step, State):
            return step
        await self.clock.sleep(step)
        return State.BUSY

    async def wait_for_work(self) -> None:
        self.waits += 1


async def until(clock: FakeClock, condition: Callable[[], bool], step: float = 0.5) -> float:
    """Advance until the condition holds; how long that took."""
    started = clock.monotonic()
    for _ in range(10_000):
        if condition():
            return clock.monotonic() - started
        await clock.advance(step)
    pytest.fail("never")


@pytest.mark.parametrize(("tranquility", "seconds"), [(0.0, 3.0), (1.0, 6.0), (2.0, 9.0)])
async def test_rest_is_in_proportion_to_work(tranquility: float, seconds: float) -> None:
    clock = FakeClock()
    worker = Scripted(clock, 1.0, 1.0, 1.0, State.DONE)
    worker.tranquility = tranquility
    task = asyncio.create_task(Runner(worker, clock).run())
    assert await until(clock, task.done) == pytest.approx(seconds, abs=0.5)


async def test_idle_waits_and_done_ends() -> None:
    clock = FakeClock()
    worker = Scripted(clock, State.IDLE, State.IDLE, State.DONE)
    runner = Runner(worker, clock)
    await runner.run()
    assert worker.waits == 2
    assert runner.report().state is State.DONE
    assert runner.report().detail == "0 to go"


async def test_our_errors_are_tried_again_ever_more_slowly_and_reported() -> None:
    clock = FakeClock()
    worker = Scripted(clock, NodeDown("a"), NodeDown("b"), NodeDown("c"), State.IDLE, State.DONE)
    runner = Runner(worker, clock)
    task = asyncio.create_task(runner.run())
    await until(clock, lambda: len(worker.script) == 2)
    report = runner.report()
    assert (report.failures, report.last_error) == (3, "node_down: c")
    await until(clock, task.done)
    assert clock.monotonic() == pytest.approx(1 + 2 + 4, abs=0.5)
    assert runner.report().failures == 0


async def test_a_bug_ends_the_process() -> None:
    clock = FakeClock()
    worker = Scripted(clock, ZeroDivisionError())
    other = Scripted(clock, 1e6, State.DONE)
    with pytest.raises(ExceptionGroup) as caught:
        await run_all([Runner(each, clock) for each in (worker, other)])
    assert caught.group_contains(ZeroDivisionError)


async def test_settle_raises_what_work_raises() -> None:
    clock = FakeClock()
    await settle(Scripted(clock, State.BUSY, State.BUSY, State.IDLE))
    with pytest.raises(HoldfastError):
        await settle(Scripted(clock, State.BUSY, NodeDown("gone")))


async def test_wake_by_time_by_call_and_by_cancellation() -> None:
    clock = FakeClock()
    wake = Wake(clock)
    task = asyncio.create_task(wake.wait(10))
    await clock.advance(9.5)
    assert not task.done()
    await clock.advance(1)
    assert task.done()
    task = asyncio.create_task(wake.wait(10))
    await clock.advance(0)
    wake.set()
    await clock.advance(0)
    assert task.done()
    task = asyncio.create_task(wake.wait(10))
    await clock.advance(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleepers == 0


async def test_a_call_before_the_wait_is_not_lost() -> None:
    wake = Wake(FakeClock())
    wake.set()
    await wake.wait(1e9)


def test_pause_is_bounded() -> None:
    assert pause(1.5, 2.0) == 3.0
    assert pause(1e6, 2.0) == PAUSE_MAX_SECONDS
    assert pause(-1.0, 2.0) == 0.0


def test_backoff_doubles_up_to_a_bound() -> None:
    assert [backoff(n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert backoff(10_000) == BACKOFF_MAX_SECONDS


class Telling(Scripted):
    """Whose status counts its steps of work."""

    def __init__(self, clock: FakeClock, *script: float | Exception | State) -> None:
        super().__init__(clock, *script)
        self.done = 0

    def status(self) -> str:
        return f"{self.done} done" if self.done else ""

    async def work(self) -> State:
        state = await super().work()
        self.done += state is State.BUSY
        return state


async def test_what_is_begun_and_finished_is_said_and_idle_looks_are_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.upkeep.worker")
    clock = FakeClock()
    worker = Telling(clock, State.IDLE, 0.7, 0.7, 0.7, State.IDLE, State.IDLE, 0.1, State.IDLE, State.IDLE, State.DONE)
    running = asyncio.ensure_future(Runner(worker, clock).run())
    await until(clock, running.done)
    await running
    assert [record.getMessage() for record in caplog.records] == [
        "scripted: begun, 2 done",
        "scripted: finished after 2.1 s, 3 done",
        "scripted: finished after 0.1 s, 4 done",
    ]


async def test_what_others_did_before_is_not_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "holdfast.upkeep.worker")
    clock = FakeClock()
    worker = Telling(clock, State.IDLE, State.IDLE, State.DONE)
    worker.done = 7
    running = asyncio.ensure_future(Runner(worker, clock).run())
    await until(clock, running.done)
    await running
    assert not caplog.records
