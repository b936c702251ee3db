"""Several processes on one drive, and processes that are killed: what was acknowledged is there, for everybody."""

import asyncio
import shutil
import signal
import sys
from pathlib import Path
from random import Random

from holdfast.core.errors import NotFound
from holdfast.drives.directory import DirectoryDrive
from holdfast.testing.drive_suite import assert_holds, key_of, make_fragment
from tests.unit.drives.opened import Opened

ROOT = Path(__file__).parents[3]


class Worker:
    """A worker process, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    @classmethod
    async def start(cls, directory: Path, seed: int, *, rounds: int) -> "Worker":
        arguments = (sys.executable, "-m", "tests.unit.drives.worker", str(directory), str(seed), "6", str(rounds))
        process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        worker = cls(process)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        return worker

    async def begin(self) -> None:
        """Wait until it is at work."""
        assert self.process.stdout is not None
        self.lines.append((await self.process.stdout.readline()).decode().strip())

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.finish()

    async def finish(self) -> None:
        assert self.process.stdout is not None
        said = await self.process.stdout.read()
        await self.process.wait()
        self.lines += said.decode().splitlines()

    def possible(self, outcomes: dict[int, set[bytes | None]]) -> None:
        """Note what each key may be: the tag last acknowledged, None for deleted, and what was in flight at the end."""
        for line in self.lines:
            if line == "end":
                continue
            stage, verb, number, *tag = line.split()
            outcome = tag[0].encode() if verb == "put" else None
            if stage == "done":
                outcomes[int(number)] = {outcome}
            else:
                outcomes.setdefault(int(number), {None}).add(outcome)


async def check(drive: DirectoryDrive, outcomes: dict[int, set[bytes | None]]) -> None:
    for number, allowed in outcomes.items():
        try:
            part = await drive.get(key_of(number))
        except NotFound:
            assert None in allowed, f"{number} is gone, it should be one of {allowed}"
            continue
        assert part.tag in allowed, f"{number} has tag {part.tag!r}, it should be one of {allowed}"
        await assert_holds(drive, make_fragment(number, 5000 + number % 7, tag=part.tag))


async def test_killed_at_any_moment(opened: Opened) -> None:
    random = Random(3)
    outcomes: dict[int, set[bytes | None]] = {}
    for _ in range(5):
        worker = await Worker.start(opened.path, 1, rounds=100_000)
        await worker.begin()
        await asyncio.sleep(random.uniform(0.05, 0.4))
        await worker.kill()
        worker.possible(outcomes)
        drive = await opened.open()
        await check(drive, outcomes)
        # What was in flight is settled now, and a rebuild agrees.
        for number, allowed in outcomes.items():
            allowed.clear()
            there = await drive.has([key_of(number)])
            allowed.add((await drive.get(key_of(number))).tag if there[0] else None)
        await opened.close()
        shutil.rmtree(opened.path / "index")
        drive = await opened.open()
        await check(drive, outcomes)
        await opened.close()


async def test_two_processes_and_this_one(opened: Opened) -> None:
    drive = await opened.open()
    workers = [await Worker.start(opened.path, seed, rounds=25) for seed in (1, 2)]
    mine = [make_fragment(number) for number in range(40)]
    for fragment in mine:
        await drive.put([fragment])
    for worker in workers:
        await worker.finish()
        assert worker.lines[-1] == "end"
    outcomes: dict[int, set[bytes | None]] = {}
    for worker in workers:
        worker.possible(outcomes)
    assert all(len(allowed) == 1 for allowed in outcomes.values())
    await check(drive, outcomes)
    for fragment in mine:
        await assert_holds(drive, fragment)
    await opened.close()
    shutil.rmtree(opened.path / "index")
    drive = await opened.open()
    await check(drive, outcomes)


async def test_an_index_deleted_under_several_processes(opened: Opened) -> None:
    drive = await opened.open()
    workers = [await Worker.start(opened.path, seed, rounds=40) for seed in (1, 2)]
    for number in range(5):
        await drive.put([make_fragment(number)])
        shutil.rmtree(opened.path / "index", ignore_errors=True)
    for worker in workers:
        await worker.finish()
        assert worker.lines[-1] == "end"
    outcomes: dict[int, set[bytes | None]] = {}
    for worker in workers:
        worker.possible(outcomes)
    await check(drive, outcomes)
    assert await drive.has([key_of(number) for number in range(5)]) == [True] * 5


def _unclosed(opened: Opened) -> list[Path]:
    return [path for path in opened.segments() if path.stat().st_size % (1 << 20) == 0]


async def test_the_segment_of_a_killed_process_is_closed_by_another(opened: Opened) -> None:
    drive = await opened.open()
    worker = await Worker.start(opened.path, 1, rounds=100_000)
    for _ in range(6000):
        if _unclosed(opened):
            break
        await asyncio.sleep(0.01)
    await worker.kill()
    (before,) = _unclosed(opened)
    await drive.compact(budget_bytes=0, wasted_share=1.1)
    assert not before.exists() or b"hfF\x01" in before.read_bytes()
    outcomes: dict[int, set[bytes | None]] = {}
    worker.possible(outcomes)
    await check(drive, outcomes)
