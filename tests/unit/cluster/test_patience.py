"""Reads that wait for disks in one thread: what they save, and that a disk that hangs costs that thread alone."""

import asyncio
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from holdfast.cluster.latency import HEDGE_MIN_SECONDS
from holdfast.cluster.patience import PATIENT_THREADS_COUNT, PatientThreads
from holdfast.cluster.read import INLINE_MAX_BYTES
from holdfast.core.errors import NodeDown
from holdfast.core.ids import Buffer, DriveId
from holdfast.drives.interface import FragmentKey
from holdfast.erasure import Code, CodedBlock, copies, encode, erasure
from holdfast.testing.clock import FakeClock
from tests.unit.cluster.fakes import FakeDrive, Group, stray_tasks
from tests.unit.erasure.sample import sealed

BLOCK = sealed(INLINE_MAX_BYTES + 1000)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(PATIENT_THREADS_COUNT) as executor:
        yield executor


async def put(group: Group, code: Code) -> tuple[CodedBlock, list[FakeDrive]]:
    """BLOCK, on disks that threads can read from, and its homes."""
    block = encode(BLOCK, code)
    await group.cluster.put(block, b"tag")
    for drive in group.drives.values():
        drive.gate = Event()
        drive.gate.set()
        drive.calls.clear()
    return block, await group.homes(block.ref)


@pytest.mark.parametrize("code", [erasure(4, 2), copies(3)], ids=str)
async def test_disks_are_told_all_at_once_and_read_in_one_visit(code: Code) -> None:
    group = Group(7)
    block, homes = await put(group, code)
    assert await group.cluster.get(block.ref, bytes) == BLOCK
    for drive in group.drives.values():
        assert drive.calls == (["expect", "get_here"] if drive in homes[: code.k] else [])
    assert group.damage == []
    with pytest.raises(ZeroDivisionError):
        await group.cluster.get(block.ref, lambda sealed: len(sealed) // 0)
    assert not stray_tasks()


async def test_only_what_is_not_in_memory_is_waited_for() -> None:
    group = Group(7)
    block, homes = await put(group, erasure(4, 2))
    homes[0].is_cached = homes[1].is_cached = True
    assert await group.cluster.get(block.ref, bytes) == BLOCK
    assert [home.calls[-1] for home in homes[:4]] == ["get_at_once", "get_at_once", "get_here", "get_here"]


@pytest.mark.parametrize("trouble", ["down", "missing", "rot that is noticed", "rot that is not"])
async def test_what_is_not_good_is_asked_for_elsewhere(trouble: str) -> None:
    group = Group(7)
    block, homes = await put(group, erasure(4, 2))
    key = FragmentKey(block.ref.id, 2)
    if trouble == "down":
        homes[2].error = NodeDown
    elif trouble == "missing":
        await homes[2].memory.delete([key])
    else:
        homes[2].rot[key] = trouble == "rot that is noticed"
    assert await group.cluster.get(block.ref, bytes) == BLOCK
    assert [found[1] for found in group.damage] == ([] if trouble == "down" else [2])
    assert not stray_tasks()


async def test_a_disk_that_hangs_is_left_behind_and_what_it_brings_late_is_nobodys(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    group = Group(6, clock, patient=threads)
    block, homes = await put(group, erasure(4, 2))
    late = homes[1]
    late.gate = gate = Event()
    late.seconds = 1000.0
    late.rot[FragmentKey(block.ref.id, 1)] = False
    observed: list[float] = []
    monkeypatch.setattr(group.cluster._latency, "observe", observed.append)
    reading = asyncio.ensure_future(group.cluster.get(block.ref, _as_it_is))
    await asyncio.to_thread(late.reached.wait)
    assert not reading.done()
    await clock.advance(HEDGE_MIN_SECONDS)
    found = await reading
    assert bytes(found) == BLOCK
    gate.set()
    threads.shutdown()
    assert late.calls[-1] == "get_here", "the thread went on by itself"
    assert bytes(found) == BLOCK, "and what it read went to where nobody looks"
    assert group.damage == []
    assert observed[0] == HEDGE_MIN_SECONDS, "where all are like that, the next are waited for longer"
    assert [home for home in homes if group.cluster._slow_readers.is_slow(home.id)] == [late]
    assert not stray_tasks()


async def test_a_disk_that_answers_just_when_it_is_given_up_does_no_harm(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    group = Group(6, clock, patient=threads)
    block, homes = await put(group, erasure(4, 2))
    late, behind = homes[1], homes[2]
    late.gate, behind.gate = Event(), Event()
    slow = group.cluster._slow_readers
    note = slow.note

    def note_meanwhile(drives: Iterable[DriveId]) -> None:
        note(drives)
        late.gate.set()  # type: ignore[union-attr]
        behind.reached.wait()

    monkeypatch.setattr(slow, "note", note_meanwhile)
    reading = asyncio.ensure_future(group.cluster.get(block.ref, bytes))
    await asyncio.to_thread(late.reached.wait)
    await clock.advance(HEDGE_MIN_SECONDS)
    try:
        assert await reading == BLOCK
    finally:
        behind.gate.set()
    assert [home for home in homes if slow.is_slow(home.id)] == [late]


async def test_who_finds_no_thread_free_reads_as_if_there_were_none() -> None:
    group = Group(7)
    block, _ = await put(group, erasure(4, 2))
    group.cluster._patient._free = _NoneFree()  # type: ignore[assignment]
    assert await group.cluster.get(block.ref, bytes) == BLOCK
    assert {call for drive in group.drives.values() for call in drive.calls} == {"get"}


async def test_nobody_queues_for_patient_threads() -> None:
    gate = Event()
    with ThreadPoolExecutor(1) as one:
        patient = PatientThreads(one)
        calls = [patient.try_run(gate.wait) for _ in range(PATIENT_THREADS_COUNT)]
        assert None not in calls
        assert patient.try_run(gate.wait) is None
        # One that was never begun is over as well, once nobody wants it.
        last = calls.pop()
        assert last is not None
        last.cancel()
        await asyncio.sleep(0)
        assert (again := patient.try_run(gate.wait)) is not None
        gate.set()
        assert await again
        assert patient.try_run(gate.wait) is not None


class _NoneFree:
    def acquire(self, *, blocking: bool) -> bool:
        return blocking


def _as_it_is(sealed: Buffer) -> Buffer:
    return sealed
