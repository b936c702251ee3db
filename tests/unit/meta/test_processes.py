"""Several processes on one store: no update is lost, and any of them may be killed at any moment."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Sequence
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random
from typing import cast

import pytest

from holdfast.core.disk import Disk, File
from holdfast.core.ids import Buffer, Token
from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Expectation, HasToken, IsAbsent, Meta, Put, Row
from holdfast.testing.meta_race import judge, race
from holdfast.testing.meta_suite import scan_all
from tests.unit.meta.stores import Place


async def open_place(place: Place) -> Meta:
    return await place.open()


@pytest.mark.slow
async def test_eight_processes_lose_no_update(tmp_path: Path) -> None:
    place = Place(tmp_path, 1, 0).create()
    result = await race(partial(open_place, place), processes=8, in_flight=8, attempts=100_000, counters=8)
    print(f"{result.attempts} attempts, {result.won} won, {result.attempts / result.seconds:.0f}/s")
    assert result.mistakes == ()
    assert result.won > 1000


def test_the_judge_knows_a_lost_update() -> None:
    assert judge([(0, 1), (0, 2), (1, 1)], [2, 1]) == ()
    assert "updates were lost" in judge([(0, 1), (0, 2), (0, 2)], [2])[0]
    assert "nobody was told" in judge([(0, 1), (0, 3)], [3])[0]
    assert "had been acknowledged" in judge([(0, 1), (0, 2)], [1])[0]


class KillingFile:
    """A file of `KillingDisk`."""

    def __init__(self, inner: File, disk: "KillingDisk") -> None:
        self._inner = inner
        self._disk = disk

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def write(self, buffers: Sequence[Buffer], offset: int) -> None:
        self._disk.tick()
        if self._disk.left == 1:
            # Half of it, and then the end.
            whole = b"".join(buffers)
            self._inner.write((whole[: len(whole) // 2],), offset)
            self._disk.tick()
        self._inner.write(buffers, offset)

    def sync(self) -> None:
        self._disk.tick()
        self._inner.sync()
        self._disk.tick()


class KillingDisk(OsDisk):
    """A disk that kills its process with no warning at the `left`th step from now."""

    def __init__(self, left: int) -> None:
        self.left = left

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False) -> File:
        return cast(File, KillingFile(super().open(path, create=create, exclusive=exclusive), self))

    def rename(self, source: Path, target: Path) -> None:
        self.tick()
        super().rename(source, target)
        self.tick()

    def replace_file(self, path: Path, data: Buffer, *, mode: int = 0o600) -> None:
        self.tick()
        super().replace_file(path, data, mode=mode)
        self.tick()


def write_until_killed(place: Place, name: int, steps: int, diary: Path) -> None:
    """Commit rows and count up, writing down first what is tried and then what was acknowledged."""
    descriptor = os.open(diary, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    async def work(meta: Meta, task: int) -> None:
        number = 0
        while True:
            number += 1
            token = Token(b"%08d%04d%04d" % (name, task, number))
            [row] = await meta.get_many([b"counter"])
            expecting: Expectation = IsAbsent(b"counter") if row is None else HasToken(b"counter", row.token)
            value = 1 if row is None else int(row.value) + 1
            try:
                changes = [Put(b"counter", b"%d" % value), Put(b"row %s" % token, b"%d" % value * 200)]
                await meta.commit(changes, [expecting], token=token)
            except Exception:  # noqa: BLE001  refused: somebody else counted
                continue
            os.write(descriptor, b"%s %d\n" % (token, value))

    async def run() -> None:
        disk: Disk = KillingDisk(steps) if steps else OsDisk()
        meta = await place.open(disk)
        await asyncio.gather(*(work(meta, task) for task in range(4)))

    asyncio.run(run())


def nursery() -> ForkServerContext:
    """Processes that start quickly, for what they import is there already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def acknowledged(diary: Path) -> dict[bytes, int]:
    lines = diary.read_bytes().splitlines() if diary.exists() else []
    return {line.split()[0]: int(line.split()[1]) for line in lines}


async def check_diary(place: Place, diary: Path) -> int:
    """Everything that was acknowledged is there, nothing is there in part, and no count was given twice."""
    wanted = acknowledged(diary)
    meta = await place.open()
    try:
        rows = [entry for entry in await scan_all(meta, KeyRange(b"row "), limit=1000) if isinstance(entry, Row)]
        counter = int((await meta.get(b"counter")).value)
        assert await meta.verify() == []
    finally:
        await meta.close()
    found = {row.token: row.value for row in rows}
    for token, value in wanted.items():
        assert found[Token(token)] == b"%d" % value * 200
    values = sorted(int(value[: len(value) // 200]) for value in found.values())
    assert values == list(range(1, counter + 1)), "each count is there once: rows and counter change together"
    return len(wanted)


@pytest.mark.parametrize(("drives", "losses"), [(1, 0), (3, 1)])
async def test_processes_killed_in_the_middle_of_a_commit(tmp_path: Path, drives: int, losses: int) -> None:
    """Two processes run on while others die at a given step of writing, among them those that hold the lock."""
    place = Place(tmp_path, drives, losses).create()
    diary = tmp_path / "diary"
    chance = Random(drives)
    context = nursery()
    steady = [context.Process(target=write_until_killed, args=(place, number, 0, diary)) for number in range(2)]
    for process in steady:
        process.start()
    for batch in range(3):
        victims = [
            context.Process(
                target=write_until_killed, args=(place, 10 + 10 * batch + number, chance.randrange(8, 120), diary)
            )
            for number in range(3)
        ]
        for victim in victims:
            victim.start()
        for victim in victims:
            await asyncio.to_thread(victim.join, 20)
            assert victim.exitcode == -signal.SIGKILL
    assert all(process.is_alive() for process in steady), "the others go on"
    for process in steady:
        process.kill()
        await asyncio.to_thread(process.join)
    assert await check_diary(place, diary) > 50


async def test_the_only_process_killed_at_every_step(tmp_path: Path) -> None:
    place = Place(tmp_path, 3, 1).create()
    diary = tmp_path / "diary"
    context = nursery()
    for steps in (*range(1, 24), 40, 41, 42, 43):
        process = context.Process(target=write_until_killed, args=(place, steps, steps, diary))
        process.start()
        await asyncio.to_thread(process.join, 20)
        assert process.exitcode == -signal.SIGKILL
    await check_diary(place, diary)
