"""Drives that hang without an error: nobody waits for them for ever, and what arrives late changes nothing."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from threading import Event

import pytest

from holdfast.core.errors import Ambiguous, Unavailable
from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Put, Row
from holdfast.meta.local.bounded import Patience
from holdfast.meta.local.care import Care
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.run import Run
from holdfast.meta.local.witness import FILE_NAME, decode_witness
from holdfast.testing.faulty_disk import Fault, FaultyDisk
from holdfast.testing.meta_suite import refusal, scan_all, token
from tests.unit.meta.stores import Place, drive_id

IMPATIENT = Patience(commit=0.4, upkeep=0.4)

# Far more than a few calls that are given up take, and far less than for ever.
ANSWER_SECONDS = 60


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk(OsDisk())


@pytest.fixture
def go_on() -> Iterator[Event]:
    """Lets every call that hangs go on."""
    event = Event()
    yield event
    event.set()


@pytest.fixture
def no_care(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep comes only when it is called."""
    monkeypatch.setattr(Care, "tend", lambda care: None)


async def put(meta: LocalMeta, name: bytes, number: int) -> None:
    async with asyncio.timeout(ANSWER_SECONDS):
        await meta.commit([Put(name, b"")], token=token(number))


async def keys(meta: LocalMeta) -> list[bytes]:
    return [row.key for row in await scan_all(meta, KeyRange(), limit=1000) if isinstance(row, Row)]


async def arrived(place: Place) -> None:
    """Until no drive of the run owes anybody an answer."""

    def wait() -> None:
        while any(is_late(place, number) for number in range(place.count)):
            Event().wait(0.01)

    await asyncio.wait_for(asyncio.to_thread(wait), ANSWER_SECONDS)


def is_late(place: Place, number: int) -> bool:
    run = Run(place.run)
    try:
        return run.is_late(drive_id(number))
    finally:
        run.close()


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_commits_go_on_without_a_mirror_that_hangs(
    tmp_path: Path, disk: FaultyDisk, go_on: Event, operation: str
) -> None:
    five = Place(tmp_path, 5, 2).create()
    async with await five.open(disk, patience=IMPATIENT) as meta, await five.open() as other:
        await put(meta, b"a", 1)
        disk.faults.append(Fault(operation, "drive0/meta/log-", error=0, until=go_on, times=1))
        await put(meta, b"b", 2)
        assert drive_id(0) not in other.status().mirrors
        await put(other, b"c", 3)
        await meta.mend()
        assert is_late(five, 0)
        assert drive_id(0) not in other.status().mirrors, "it owes an answer"
        go_on.set()
        await arrived(five)
        await put(meta, b"d", 4)
        assert await keys(other) == [b"a", b"b", b"c", b"d"]
        await meta.mend()
        assert await meta.verify() == []
    five.forget_views()
    async with await five.open() as meta:
        assert await keys(meta) == [b"a", b"b", b"c", b"d"]


async def test_a_store_whose_only_mirror_hangs_says_so(
    tmp_path: Path, disk: FaultyDisk, go_on: Event, no_care: None
) -> None:
    place = Place(tmp_path, 1, 0).create()
    async with await place.open(disk, patience=IMPATIENT) as meta, await place.open() as other:
        await put(meta, b"a", 1)
        disk.faults.append(Fault("write", "meta/log-", error=0, until=go_on, times=1))
        await refusal(Ambiguous, put(meta, b"b", 2))
        # The drive answers this one, which must all the same leave it alone: a write to it is still under way.
        for number, who in enumerate((meta, other), 3):
            await refusal(Unavailable, put(who, b"not yet", number))
            assert await keys(who) == [b"a"]
        go_on.set()
        await arrived(place)
        await put(other, b"c", 5)
        assert await keys(meta) == [b"a", b"b", b"c"], "what arrived late was whole: it took effect, in its place"
        assert await meta.verify() == []
    place.forget_views()
    async with await place.open() as meta:
        assert await keys(meta) == [b"a", b"b", b"c"]


async def test_a_record_that_arrives_late_is_no_fork(
    tmp_path: Path, disk: FaultyDisk, go_on: Event, no_care: None
) -> None:
    """It was refused, another took its number, and then it lands on a drive that is no mirror any more."""
    place = Place(tmp_path, 3, 1).create()
    async with await place.open(disk, patience=IMPATIENT) as meta, await place.open() as other:
        await put(meta, b"a", 1)
        disk.faults.append(Fault("write", "drive0/meta/log-", error=0, until=go_on, times=1))
        disk.faults.append(Fault("write", "drive1/meta/log-", times=1))
        await refusal(Ambiguous, put(meta, b"late", 2))
        await put(other, b"b", 3)
        assert other.status().mirrors == (drive_id(1),)
        go_on.set()
        await arrived(place)
        assert b"late" in (tmp_path / "drive0/meta/log-0000000000000001").read_bytes()
        await put(meta, b"c", 4)
        assert await keys(other) == await keys(meta) == [b"a", b"b", b"c"]
    # Without the mirror that has it all, nothing is taken from the one that has another history.
    shutil.rmtree(place.run)
    place.forget_views()
    (tmp_path / "drive1").rename(tmp_path / "away")
    assert "every mirror" in str(await refusal(Unavailable, place.open()))
    (tmp_path / "away").rename(tmp_path / "drive1")
    async with await place.open() as meta:
        await meta.mend()
        assert set(meta.status().mirrors) == {drive_id(0), drive_id(1)}
        assert await meta.verify() == []
    # And when it was made anew, it holds the same.
    shutil.rmtree(tmp_path / "drive1")
    place.forget_views()
    async with await place.open() as meta:
        assert await keys(meta) == [b"a", b"b", b"c"]


@pytest.mark.parametrize("skip", [0, 1])
async def test_a_witness_that_arrives_late_takes_nothing_back(
    tmp_path: Path, disk: FaultyDisk, go_on: Event, no_care: None, skip: int
) -> None:
    """A promise, or an acceptance, that was given up lands after newer epochs."""
    five = Place(tmp_path, 5, 2).create()
    async with await five.open(disk, patience=IMPATIENT) as meta, await five.open() as other:
        await put(meta, b"a", 1)
        disk.faults.append(Fault("replace_file", "drive4/meta/witness", error=0, until=go_on, skip=skip, times=1))
        disk.faults.append(Fault("sync", "drive0/meta/log-", times=1))
        await put(meta, b"b", 2)
        async with asyncio.timeout(ANSWER_SECONDS):
            await other.mend()
        await put(other, b"c", 3)
        newest = other.status().epoch
        go_on.set()
        await arrived(five)
        late = decode_witness((tmp_path / "drive4/meta" / FILE_NAME).read_bytes())
        assert late.epoch < newest
        assert late.promised < newest, "it was left alone while it owed an answer"
        await other.mend()
    shutil.rmtree(five.run)
    for lost in combinations(range(4), 2):
        left = Place(tmp_path / f"left{lost}", 5, 2)
        shutil.copytree(tmp_path, left.root, ignore=lambda _, names: [name for name in names if "left" in name])
        left.forget_views()
        for number in lost:
            shutil.rmtree(left.root / f"drive{number}")
        async with await left.open() as meta:
            assert await keys(meta) == [b"a", b"b", b"c"]
            assert meta.status().epoch > newest


@pytest.mark.parametrize(
    ("operation", "path"),
    [("read_file", "meta/witness"), ("read_into", "meta/log-"), ("list_directory", "meta"), ("open", "meta/run")],
)
async def test_a_start_does_not_wait_for_a_drive_that_hangs(
    tmp_path: Path, disk: FaultyDisk, go_on: Event, operation: str, path: str
) -> None:
    five = Place(tmp_path, 5, 2).create()
    async with await five.open() as meta:
        await put(meta, b"a", 1)
    five.forget_views()
    disk.faults.append(Fault(operation, f"drive0/{path}", error=0, until=go_on))
    async with asyncio.timeout(ANSWER_SECONDS), await five.open(disk, patience=IMPATIENT) as meta:
        await put(meta, b"b", 2)
        assert await keys(meta) == [b"a", b"b"]
        assert drive_id(0) not in meta.status().mirrors


async def test_upkeep_does_not_wait_for_a_drive_that_hangs(
    tmp_path: Path, disk: FaultyDisk, go_on: Event, no_care: None
) -> None:
    five = Place(tmp_path, 5, 2).create()
    async with await five.open(disk, patience=IMPATIENT) as meta, await five.open() as other:
        await put(meta, b"a", 1)
        disk.faults.append(Fault("write", "drive0/meta/checkpoint-", error=0, until=go_on))
        async with asyncio.timeout(ANSWER_SECONDS):
            await meta.checkpoint()
        await put(other, b"b", 2)
        assert drive_id(0) not in other.status().mirrors, "nothing is laid on top of what may still arrive"
        go_on.set()
        await arrived(five)
        await other.mend()
        assert await other.verify() == []


def test_a_drive_is_late_as_long_as_it_owes_anybody_an_answer(tmp_path: Path) -> None:
    ours, theirs = Run(tmp_path), Run(tmp_path)
    assert not theirs.is_late(drive_id(0))
    held, again = ours.hold_late(drive_id(0)), theirs.hold_late(drive_id(0))
    assert theirs.is_late(drive_id(0))
    assert not theirs.is_late(drive_id(1))
    OsDisk().open(tmp_path / f"late-{drive_id(0).hex()}").close()
    assert theirs.is_late(drive_id(0)), "another descriptor does not let go of it"
    os.close(held)
    assert ours.is_late(drive_id(0)), "two calls, of two processes"
    os.close(again)
    assert not ours.is_late(drive_id(0))
    ours.close()
    theirs.close()
