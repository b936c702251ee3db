"""Processes that die of the view they read: they come back, and not to the same view for ever."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Put, Row
from holdfast.meta.local.attendance import PREFIX, RunAttendance
from holdfast.testing.faulty_disk import scribble_over_rows
from holdfast.testing.meta_suite import scan_all, token
from tests.unit.meta.stores import Place
from tests.unit.meta.test_processes import nursery

ROWS_COUNT = 300
# What is shorter is the view's own.
ROW_MIN_BYTES = 1000


def die_inside(run: Path, place: str) -> None:
    attendance = RunAttendance(run)
    with attendance.inside("before"), attendance.inside(place):
        os.kill(os.getpid(), signal.SIGKILL)


def die_outside(run: Path) -> None:
    attendance = RunAttendance(run)
    with attendance.inside("place"):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


def test_deaths_are_counted_where_they_happened(tmp_path: Path) -> None:
    attendance = RunAttendance(tmp_path)
    with attendance.inside("place"):
        assert attendance.deaths("place") == 0, "who is alive is not dead"
    victims = [nursery().Process(target=die_inside, args=(tmp_path, name)) for name in ("place", "place", "other")]
    victims.append(nursery().Process(target=die_outside, args=(tmp_path,)))
    for victim in victims:
        victim.start()
    for victim in victims:
        victim.join(20)
        assert victim.exitcode == -signal.SIGKILL
    assert [attendance.deaths(place) for place in ("place", "other", "before")] == [2, 1, 0]
    attendance.forget("place")
    assert [attendance.deaths(place) for place in ("place", "other")] == [0, 1]
    attendance.forget("other")
    assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1, "only the one that lives"
    attendance.close()
    assert list(tmp_path.iterdir()) == []


def test_a_context_that_ends_gives_back_the_one_around_it(tmp_path: Path) -> None:
    attendance = RunAttendance(tmp_path)
    [path] = tmp_path.iterdir()
    with attendance.inside("a"):
        with attendance.inside("b"):
            assert path.read_bytes().startswith(b"b\0")
        assert path.read_bytes().startswith(b"a\0")
    assert not any(path.read_bytes())
    attendance.close()


def read_everything(place: Place, ready: Path, go: Path) -> None:
    """Open the store, wait for a sign, read all rows; the exit code says whether they were right."""

    async def run() -> bool:
        async with await place.open() as meta:
            OsDisk().open(ready, create=True).close()
            await asyncio.to_thread(until, go)
            rows = [row for row in await scan_all(meta, KeyRange(), limit=1000) if isinstance(row, Row)]
            return [row.value for row in rows] == [b"%06d" % number * 200 for number in range(ROWS_COUNT)]

    os._exit(0 if asyncio.run(run()) else 1)


def scribble(path: Path) -> None:
    scribble_over_rows(path, longer_than=ROW_MIN_BYTES)


def cut(path: Path) -> None:
    """As when the drive is pulled: what is behind the first pages cannot be read any more."""
    os.truncate(path, 2 * 4096)


@pytest.mark.parametrize("harm", [scribble, cut])
async def test_who_dies_of_a_view_does_not_die_of_it_again_and_again(
    tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    place = Place(tmp_path, 3, 1).create()
    async with await place.open() as meta:
        for number in range(ROWS_COUNT):
            await meta.commit([Put(b"%06d" % number, b"%06d" % number * 200)], token=token(number))
    ready, go = tmp_path / "ready", tmp_path / "go"
    context = nursery()
    codes: list[int | None] = []
    for _ in range(4):
        child = context.Process(target=read_everything, args=(place, ready, go))
        child.start()
        if not codes:
            await asyncio.to_thread(until, ready)
            harm(view_of(place))
            OsDisk().open(go, create=True).close()
        await asyncio.to_thread(child.join, 30)
        codes.append(child.exitcode)
        if child.exitcode == 0:
            break
    assert codes == [-signal.SIGBUS, -signal.SIGBUS, 0]


def view_of(place: Place) -> Path:
    [view] = place.root.glob("drive*/meta/view-*/data.mdb")
    return view


def until(path: Path) -> None:
    for _ in range(2000):
        if path.exists():
            return
        Event().wait(0.01)
    raise AssertionError(f"{path} does not come")
