"""Disks that fail and fill up under the embedded engine."""

import asyncio
import errno
import fcntl
import threading
from pathlib import Path

import lmdb
import pytest

from holdfast.core.errors import Ambiguous, Full, HoldfastError, Unavailable
from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Delete, Put, Row
from holdfast.meta.local import views
from holdfast.meta.local.care import Care
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.mirror import Mirror
from holdfast.meta.local.view import Transaction, View
from holdfast.testing.faulty_disk import Fault, FaultyDisk
from holdfast.testing.meta_suite import refusal, scan_all, token
from tests.unit.meta.stores import Place


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk(OsDisk())


@pytest.fixture
def five(tmp_path: Path) -> Place:
    return Place(tmp_path, 5, 2).create()


async def keys(meta: LocalMeta) -> list[bytes]:
    return [row.key for row in await scan_all(meta, KeyRange(), limit=1000) if isinstance(row, Row)]


@pytest.mark.parametrize("operation", ["write", "sync"])
@pytest.mark.parametrize("partial", [False, True])
async def test_a_mirror_that_fails_leaves_the_set(five: Place, disk: FaultyDisk, operation: str, partial: bool) -> None:
    async with await five.open(disk) as meta, await five.open() as other:
        await meta.commit([Put(b"a", b"")], token=token(1))
        epoch = meta.status().epoch
        disk.faults.append(Fault(operation, "drive0/meta/log-", partial=partial))
        await meta.commit([Put(b"b", b"")], token=token(2))
        status = other.status()
        assert status.epoch > epoch
        assert next(iter(five.drives)) not in status.mirrors
        await other.commit([Put(b"c", b"")], token=token(3))
        assert await keys(meta) == [b"a", b"b", b"c"]
        await meta.mend()
        assert len(other.status().mirrors) == 3
    async with await five.open() as meta:
        assert await keys(meta) == [b"a", b"b", b"c"]


async def test_mirrors_fail_one_after_the_other_down_to_the_last(five: Place, disk: FaultyDisk) -> None:
    async with await five.open(disk) as meta:
        for number in range(5):
            disk.faults.append(Fault("sync", f"drive{number}/meta/log-"))
            await meta.commit([Put(b"%d" % number, b"")], token=token(number))
            await meta.mend()
            if number == 1:
                break
        assert len(await keys(meta)) == 2
    async with await five.open() as meta:
        assert len(await keys(meta)) == 2


async def test_a_commit_that_no_mirror_took_is_ambiguous_and_settled_later(tmp_path: Path, disk: FaultyDisk) -> None:
    place = Place(tmp_path, 1, 0).create()
    async with await place.open(disk) as meta:
        await meta.commit([Put(b"a", b"")], token=token(1))
        disk.faults.append(Fault("sync", "meta/log-", times=1))
        await refusal(Ambiguous, meta.commit([Put(b"b", b"")], token=token(2)))
        assert await keys(meta) == [b"a"], "nobody sees what may not be durable"
        await meta.commit([Put(b"c", b"")], token=token(3))
        # It was whole in the log, so it took effect: before the next commit, and for good.
        assert await keys(meta) == [b"a", b"b", b"c"]
    async with await place.open() as meta:
        assert await keys(meta) == [b"a", b"b", b"c"]


async def test_a_segment_that_was_taken_back_is_not_written_to(
    tmp_path: Path, disk: FaultyDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process begins a segment and fails; another takes it back and makes it anew; then the first goes on."""
    monkeypatch.setattr(Care, "tend", lambda care: None)
    place = Place(tmp_path, 1, 0).create()
    too_much_for_the_rest_of_it = b"v" * 200_000
    async with await place.open(disk) as meta, await place.open() as other:
        await meta.commit([Put(b"a", b"v" * 100_000)], token=token(1))
        disk.faults.append(Fault("write", "meta/log-", times=1))
        await refusal(Ambiguous, meta.commit([Put(b"b", too_much_for_the_rest_of_it)], token=token(2)))
        await other.commit([Put(b"c", too_much_for_the_rest_of_it)], token=token(3))
        await meta.commit([Put(b"d", b"")], token=token(4))
    place.forget_views()
    async with await place.open() as meta:
        assert await keys(meta) == [b"a", b"c", b"d"]


async def test_a_log_that_was_wiped_takes_no_commits(five: Place) -> None:
    """Files that were unlinked take writes like any others."""
    async with await five.open() as meta:
        await meta.commit([Put(b"a", b"")], token=token(1))
        await meta.mend()
        for path in five.root.glob("drive0/meta/log-*"):
            path.unlink()
        await meta.commit([Put(b"b", b"")], token=token(2))
        assert next(iter(five.drives)) not in meta.status().mirrors


def a_bug(*_: object) -> None:
    raise KeyError("a bug")


async def test_a_drive_that_was_moved_takes_commits(five: Place) -> None:
    """Who has its files open reaches it wherever it is."""
    async with await five.open() as meta:
        await meta.commit([Put(b"a", b"")], token=token(1))
        await meta.mend()
        mirrors = meta.status().mirrors
        one, two, between = (five.root / name for name in ("drive0", "drive1", "between"))
        for source, target in ((one, between), (two, one), (between, two)):
            source.rename(target)
        await meta.commit([Put(b"b", b"")], token=token(2))
        assert meta.status().mirrors == mirrors
        assert await keys(meta) == [b"a", b"b"]


async def test_the_committer_survives_what_nobody_expected(five: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were its thread to end, every later commit would wait for ever."""
    said: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context))
    async with await five.open() as meta:
        await meta.commit([Put(b"a", b"")], token=token(1))
        with monkeypatch.context() as patch:
            patch.setattr(Mirror, "write", a_bug)
            await refusal(Ambiguous, meta.commit([Put(b"b", b"")], token=token(2)))
        await meta.commit([Put(b"c", b"")], token=token(3))
        assert await keys(meta) == [b"a", b"c"]
    assert [repr(context["exception"]) for context in said] == ["KeyError('a bug')"]


async def test_a_bug_on_one_mirror_leaves_no_other_that_is_still_written_to(
    five: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next commit takes the same place in the log: a late write would go over it."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    begun: list[Mirror] = []
    ended: list[Mirror] = []

    def slow_but_for_the_first(mirror: Mirror, *arguments: object) -> None:
        begun.append(mirror)
        if len(begun) == 1:
            raise KeyError("a bug")
        threading.Event().wait(0.2)
        ended.append(mirror)

    async with await five.open() as meta:
        await meta.commit([Put(b"a", b"")], token=token(1))
        with monkeypatch.context() as patch:
            patch.setattr(Mirror, "write", slow_but_for_the_first)
            await refusal(Ambiguous, meta.commit([Put(b"b", b"")], token=token(2)))
            assert len(begun) > 1
            assert sorted(map(id, ended)) == sorted(map(id, begun[1:]))
        await meta.commit([Put(b"c", b"")], token=token(3))
        assert await keys(meta) == [b"a", b"c"]


async def test_a_reader_that_was_cancelled_does_not_end_the_committer(five: Place) -> None:
    """It had asked for a new view, and nobody waits for that any more."""
    async with await five.open() as meta:
        with five.run.joinpath("lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            asked = asyncio.wrap_future(meta._submit(lambda: None))
            await asyncio.sleep(0.01)
            asked.cancel()
            await asyncio.sleep(0.01)
        await meta.commit([Put(b"a", b"")], token=token(1))


async def test_a_lost_mirror_without_witnesses_to_tell_is_not_acknowledged(tmp_path: Path, disk: FaultyDisk) -> None:
    place = Place(tmp_path, 3, 1).create()
    async with await place.open(disk) as meta:
        await meta.commit([Put(b"a", b"")], token=token(1))
        disk.faults += [
            Fault("sync", "drive0/meta/log-"),
            Fault("replace_file", "drive0/meta/witness"),
            Fault("replace_file", "drive2/meta/witness"),
        ]
        await refusal(Ambiguous, meta.commit([Put(b"b", b"")], token=token(2)))
        await refusal(Unavailable, meta.commit([Put(b"c", b"")], token=token(3)))
        assert await keys(meta) == [b"a"]
        disk.faults.clear()
        await meta.commit([Put(b"d", b"")], token=token(4))
        assert await keys(meta) == [b"a", b"b", b"d"]


async def test_a_full_disk_takes_deletions_and_comes_back(tmp_path: Path, disk: FaultyDisk) -> None:
    place = Place(tmp_path, 1, 0).create()
    async with await place.open(disk) as meta:
        full = Fault("allocate", "meta/", error=errno.ENOSPC)
        disk.faults.append(full)
        written = await fill_up(meta)
        assert len(await keys(meta)) == written
        await refusal(Full, meta.commit([Put(b"more", b"v")], token=token(1)))
        for number in range(0, written - 10, 10):
            await meta.commit(
                [Delete(b"%06d" % at) for at in range(number, number + 10)] + [Put(b"shrunk", b"v")], token=token(1)
            )
        disk.faults.clear()
        await meta.mend()
        with_room = b"v" * 3000
        for number in range(200):
            await retried(meta, Put(b"again %d" % number, with_room), number)
    async with await place.open() as meta:
        assert (await meta.get(b"again 199")).value == with_room


async def fill_up(meta: LocalMeta) -> int:
    """Commit until there is no room; how many commits there was room for."""
    for number in range(2000):
        try:
            await meta.commit([Put(b"%06d" % number, b"v" * 3000)], token=token(number))
        except Full:
            return number
    raise AssertionError("the disk is full, and it is not noticed")


async def retried(meta: LocalMeta, change: Put, number: int) -> None:
    """Commit; Full may be answered a few times while upkeep finds out that there is room again."""
    for _ in range(50):
        try:
            await meta.commit([change], token=token(number))
        except Full:
            await meta.mend()
        else:
            return
    raise AssertionError("there is room, and it is not found")


async def test_a_view_that_outgrows_its_addresses_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, 1, 0).create()
    monkeypatch.setattr(views, "map_bytes", lambda disk, path: 1 << 20)
    async with await place.open() as meta, await place.open() as other:
        await meta.commit([Put(b"first", b"")], token=token(1))
        assert await keys(other) == [b"first"]
        monkeypatch.setattr(views, "map_bytes", lambda disk, path: 1 << 30)
        for number in range(20):
            await meta.commit([Put(b"row %d" % number, bytes(100_000))], token=token(number))
        assert len(await keys(other)) == len(await keys(meta)) == 21
        assert await other.verify() == []


NO_ROOM = lmdb.DiskError("No space left on device")
DEAD_DISK = lmdb.Error("Input/output error")


class FailingCommits:
    """A transaction of the view whose commit fails."""

    def __init__(self, inner: Transaction, error: lmdb.Error) -> None:
        self._inner = inner
        self._error = error

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def commit(self) -> None:
        self._inner.abort()
        raise self._error


@pytest.mark.parametrize("failures", [1, 2])
@pytest.mark.parametrize("error", [NO_ROOM, DEAD_DISK], ids=["no room", "dead disk"])
async def test_a_batch_that_is_durable_reaches_the_view_whatever_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, error: lmdb.Error
) -> None:
    place = Place(tmp_path, 1, 0).create()
    async with await place.open() as meta, await place.open() as other:
        await meta.commit([Put(b"a", b"")], token=token(1))
        writing = View.writing
        left = failures

        def failing(view: View) -> Transaction:
            nonlocal left
            left -= 1
            # The third transaction is that of the view made anew.
            return FailingCommits(writing(view), error) if left >= 0 else writing(view)

        monkeypatch.setattr(View, "writing", failing)
        await meta.commit([Put(b"b", b"")], token=token(2))
        assert await keys(meta) == await keys(other) == [b"a", b"b"]
        # Whoever lost a disk has room, and need not wait for upkeep to say so.
        if error is NO_ROOM:
            await meta.mend()
        await other.commit([Put(b"c", b"")], token=token(3))
        assert await keys(meta) == [b"a", b"b", b"c"]


async def test_a_closed_engine_says_so_and_leaves_nothing(five: Place) -> None:
    meta = await five.open()
    await meta.close()
    await meta.close()
    for call in (meta.get(b"a"), meta.commit([], token=token(1)), meta.mend()):
        assert isinstance(await refusal(HoldfastError, call), Unavailable)
