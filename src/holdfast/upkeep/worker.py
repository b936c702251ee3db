"""How a chore is run: one shape for all of them, and one loop that drives and throttles them.

Rules:

- A worker does a bounded step in `work` and remembers where it was; whoever kills it between or within two steps
  loses at most the step, and every step may be done twice.
- A step that meets one of our errors is tried again later, ever more slowly; any other error is a bug and ends the
  process, whose supervisor starts it anew.
- The throttle sleeps in proportion to the time that the step took. So a chore leaves the same share of the drives to
  the clients whether they are fast or slow, and backs off by itself when they are busy: their waiting makes its steps
  longer.
- What a worker begins and finishes is said in the log, in the words of its `status`: when it has got somewhere, and not
  each time that it looked and found nothing new.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from holdfast.core.clock import Clock
from holdfast.core.errors import HoldfastError

_log = logging.getLogger(__name__)

# After one step that took long (a drive that hung), do not sit still for hours on its account.
PAUSE_MAX_SECONDS = 60.0

# The first failure may be a blip; later ones wait for somebody to do something, who wants to see soon that it helped.
BACKOFF_FIRST_SECONDS = 1.0
BACKOFF_MAX_SECONDS = 60.0

# What is over sooner is said once, when it is.
BEGUN_AFTER_SECONDS = 1.0

# Parts of rest to one of work. What mends is in a hurry: until it is done, a further loss brings data nearer to being
# lost. What only looks has days; what tidies up is in between.
TRANQUILITY_MENDING = 0.5
TRANQUILITY_TIDYING = 2.0
TRANQUILITY_LOOKING = 3.0


class State(Enum):
    BUSY = "busy"
    """There is more to do now."""
    IDLE = "idle"
    """Nothing to do until `wait_for_work` returns."""
    DONE = "done"
    """Nothing to do ever again."""


class Worker(Protocol):
    """A chore. Its methods are called one after the other, never at once."""

    @property
    def name(self) -> str: ...

    @property
    def tranquility(self) -> float:
        """How many times as long as it worked it rests; 0 is full speed. Asked after every step."""
        ...

    def status(self) -> str:
        """Where it stands, in words for people; "" when there is nothing to say. Changes when something was done."""
        ...

    async def work(self) -> State:
        """Do one bounded step. Raises HoldfastError; the step will be tried again."""
        ...

    async def wait_for_work(self) -> None:
        """Return when `work` may have something to do. Called after IDLE."""
        ...


def pause(worked_seconds: float, tranquility: float) -> float:
    """Seconds to rest after a step that took `worked_seconds`."""
    return min(max(worked_seconds, 0.0) * max(tranquility, 0.0), PAUSE_MAX_SECONDS)


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row (at least one)."""
    assert failures >= 1
    doublings = min(failures - 1, 16)
    return min(BACKOFF_FIRST_SECONDS * float(2**doublings), BACKOFF_MAX_SECONDS)


class Wake:
    """Waits for a time or for somebody who knows better, whichever comes first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = asyncio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self, seconds: float) -> None:
        timer = asyncio.ensure_future(self._clock.sleep(seconds))
        event = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait((timer, event), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            event.cancel()
            await asyncio.gather(timer, event, return_exceptions=True)
        self._event.clear()


@dataclass(frozen=True, slots=True)
class WorkerReport:
    """What `status` and the console show of a worker."""

    name: str
    state: State
    detail: str
    failures: int
    """Steps in a row that failed."""
    last_error: str


class Runner:
    """Drives one worker."""

    def __init__(self, worker: Worker, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock
        self._state = State.IDLE
        self._failures = 0
        self._last_error = ""
        self._said: str | None = None
        """The worker's status when it last had nothing to do; None before that."""
        self._busy_since: float | None = None
        self._is_begun = False
        """Whether the log says that it began."""

    def report(self) -> WorkerReport:
        return WorkerReport(self._worker.name, self._state, self._worker.status(), self._failures, self._last_error)

    async def run(self) -> None:
        """Until the worker is done. A cancellation ends it at once and leaves the step in part, which is allowed."""
        while self._state is not State.DONE:
            started = self._clock.monotonic()
            try:
                self._state = await self._worker.work()
            except HoldfastError as error:
                await self._failed(error)
                continue
            self._failures = 0
            self._tell(started)
            if self._state is State.BUSY:
                worked = self._clock.monotonic() - started
                await self._clock.sleep(pause(worked, self._worker.tranquility))
            elif self._state is State.IDLE:
                await self._worker.wait_for_work()

    def _tell(self, started: float) -> None:
        now, status = self._clock.monotonic(), self._worker.status()
        since = self._busy_since if self._busy_since is not None else started
        has_news = bool(status) and status != self._said
        if self._state is State.BUSY:
            self._busy_since = since
            if has_news and not self._is_begun and now - since >= BEGUN_AFTER_SECONDS:
                self._is_begun = True
                _log.info("%s: begun, %s", self._worker.name, status)
            return
        # What it finds when it first looks was done by others.
        is_first = self._said is None and self._busy_since is None
        if self._is_begun or (has_news and not is_first):
            _log.info("%s: finished after %.1f s, %s", self._worker.name, now - since, status or "nothing is left")
        self._said, self._busy_since, self._is_begun = status, None, False

    async def _failed(self, error: HoldfastError) -> None:
        self._failures += 1
        self._last_error = f"{error.code}: {error}"
        wait = backoff(self._failures)
        _log.warning("%s: %s; again in %.0f s", self._worker.name, self._last_error, wait)
        await self._clock.sleep(wait)


async def run_all(runners: Sequence[Runner]) -> None:
    """Drive workers side by side until all are done, or one meets a bug, which ends them all."""
    async with asyncio.TaskGroup() as group:
        for runner in runners:
            group.create_task(runner.run())


async def settle(worker: Worker) -> None:
    """Work at full speed until there is nothing to do: what a command does by hand. Raises what `work` raises."""
    while await worker.work() is State.BUSY:
        pass
