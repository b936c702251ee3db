"""Processes that race for counters in one metadata map: every compare-and-swap that was answered must count, once.

Each attempt reads a counter and commits its successor, expecting the token that it read. Of those who read the same
row one wins. The values that were written say whether an update was lost: for each counter they must be 1, 2, 3, ...
without a gap or a repeat, and the last must be what the map holds. The count of attempts is what was asked for; how
many of them won depends on luck, and is told.
"""

import asyncio
import multiprocessing
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier as ProcessBarrier
from time import perf_counter

from holdfast.core.errors import PreconditionFailed
from holdfast.core.ids import RANDOM_ID_BYTES, Token
from holdfast.meta.interface import Expectation, HasToken, IsAbsent, Meta, Put

OpenMeta = Callable[[], Awaitable[Meta]]
"""Opens the map; called in each process, so it must be a module's function, or a `functools.partial` of one."""

Win = tuple[int, int]
"""A counter, and the value that was written to it."""


@dataclass(frozen=True, slots=True)
class Race:
    """What came of it."""

    attempts: int
    won: int
    seconds: float
    """From the moment when every process had the map open."""
    mistakes: tuple[str, ...]
    """What a linearizable map would not have done; empty is the only good value."""


def counter_key(number: int) -> bytes:
    return b"counter %d" % number


async def race(open_meta: OpenMeta, *, processes: int, in_flight: int, attempts: int, counters: int) -> Race:
    """Run a race on an empty map and judge it."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    results = context.SimpleQueue()
    share = attempts // processes
    racers = [
        context.Process(target=_racer, args=(open_meta, number, in_flight, share, counters, ready, results))
        for number in range(processes)
    ]
    for racer in racers:
        racer.start()
    await asyncio.to_thread(ready.wait)
    begin = perf_counter()
    outcomes: list[tuple[list[Win], float]] = [await asyncio.to_thread(results.get) for _ in racers]
    seconds = perf_counter() - begin
    for racer in racers:
        await asyncio.to_thread(racer.join)
    wins = [win for won, _ in outcomes for win in won]
    meta = await open_meta()
    try:
        rows = await meta.get_many([counter_key(number) for number in range(counters)])
    finally:
        await meta.close()
    held = [0 if row is None else int(row.value) for row in rows]
    return Race(share * processes, len(wins), seconds, judge(wins, held))


def judge(wins: list[Win], held: list[int]) -> tuple[str, ...]:
    """What is wrong with a race in which `wins` were answered, and the counters hold `held` at the end."""
    mistakes: list[str] = []
    for number, last in enumerate(held):
        values = Counter(value for counter, value in wins if counter == number)
        twice = sorted(value for value, count in values.items() if count > 1)
        gaps = sorted(set(range(1, last + 1)) - set(values))
        beyond = sorted(set(values) - set(range(1, last + 1)))
        if twice:
            mistakes.append(f"counter {number} was given {twice[:5]} more than once: updates were lost")
        if gaps:
            mistakes.append(f"counter {number} holds {last}, and nobody was told of {gaps[:5]}")
        if beyond:
            mistakes.append(f"counter {number} holds {last}, and {beyond[:5]} had been acknowledged")
    return tuple(mistakes)


def _racer(
    open_meta: OpenMeta,
    number: int,
    in_flight: int,
    attempts: int,
    counters: int,
    ready: ProcessBarrier,
    results: "multiprocessing.SimpleQueue[tuple[list[Win], float]]",
) -> None:
    async def run() -> tuple[list[Win], float]:
        meta = await open_meta()
        try:
            await asyncio.to_thread(ready.wait)
            begin = perf_counter()
            shares = [len(range(task, attempts, in_flight)) for task in range(in_flight)]
            won = await asyncio.gather(
                *(_attempts(meta, number * in_flight + task, share, counters) for task, share in enumerate(shares))
            )
            return [win for wins in won for win in wins], perf_counter() - begin
        finally:
            await meta.close()

    results.put(asyncio.run(run()))


async def _attempts(meta: Meta, racer: int, attempts: int, counters: int) -> list[Win]:
    wins: list[Win] = []
    for attempt in range(attempts):
        counter = (racer + attempt) % counters
        key = counter_key(counter)
        [row] = await meta.get_many([key])
        expecting: Expectation = IsAbsent(key) if row is None else HasToken(key, row.token)
        value = 1 if row is None else int(row.value) + 1
        token = Token((racer << 64 | attempt).to_bytes(RANDOM_ID_BYTES, "big"))
        try:
            await meta.commit([Put(key, b"%d" % value)], [expecting], token=token)
        except PreconditionFailed:
            continue
        wins.append((counter, value))
    return wins
