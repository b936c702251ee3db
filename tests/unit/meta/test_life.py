"""Restarts, losses, damage: what the embedded engine must bring through them, and what it must refuse."""

import asyncio
import shutil
import threading
from itertools import combinations
from pathlib import Path

import msgspec
import pytest

from holdfast.core.errors import AlreadyExists, Corrupt, HoldfastError, InvalidRequest, NotFound, Unavailable
from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Delete, HasToken, Meta, Put, Row
from holdfast.meta.local.care import Care
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.run import Run
from holdfast.meta.local.setup import restore_local
from holdfast.meta.local.store import Store
from holdfast.meta.local.views import Origin
from holdfast.testing.meta_suite import refusal, scan_all, token
from tests.unit.meta.stores import SMALL, STORE, Chance, Place


async def fill(meta: Meta, count: int, start: int = 0, size: int = 300) -> None:
    for number in range(start, start + count):
        await meta.commit([Put(b"row %06d" % number, b"%d" % number * size)], token=token(number))


async def check(meta: Meta, count: int, size: int = 300) -> None:
    rows = await scan_all(meta, KeyRange(), limit=1000)
    wanted = [Row(b"row %06d" % number, token(number), b"%d" % number * size) for number in range(count)]
    assert rows == wanted


def forget_run(place: Place) -> None:
    """As a boot does: the run directory is gone."""
    shutil.rmtree(place.run)


def files(place: Place, pattern: str) -> list[Path]:
    return sorted(place.root.glob(f"drive*/meta/{pattern}"))


@pytest.fixture
def one(tmp_path: Path) -> Place:
    return Place(tmp_path, 1, 0).create()


@pytest.fixture
def five(tmp_path: Path) -> Place:
    return Place(tmp_path, 5, 2).create()


class TestRestart:
    async def test_rows_are_there_after_an_orderly_end(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 50)
        async with await five.open() as meta:
            await check(meta, 50)
            await fill(meta, 50, 50)
            await check(meta, 100)

    async def test_an_orderly_end_keeps_the_view(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 3)
        [before] = files(five, "view-*")
        forget_run(five)
        async with await five.open() as meta:
            await check(meta, 3)
        assert files(five, "view-*") == [before]

    async def test_a_view_is_made_again_from_the_log(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 50)
        five.forget_views()
        async with await five.open() as meta:
            await check(meta, 50)

    async def test_a_view_is_made_again_from_checkpoint_and_log(self, five: Place) -> None:
        async with await five.open() as meta:
            for start in range(0, 400, 100):
                await fill(meta, 100, start, 900)
                await meta.checkpoint()
            await fill(meta, 10, 400, 900)
        assert len(files(five, "checkpoint-*")) == 3 * 2
        assert not files(five, "log-0000000000000001"), "the log that no checkpoint needs is dropped"
        five.forget_views()
        async with await five.open() as meta:
            await check(meta, 410, 900)

    async def test_checkpoints_come_by_themselves(self, one: Place) -> None:
        async with await one.open() as meta:
            await fill(meta, 1500, 0, 900)
            await meta.mend()
            await meta.mend()
        assert files(one, "checkpoint-*")
        one.forget_views()
        async with await one.open() as meta:
            await check(meta, 1500, 900)

    async def test_a_store_is_made_once(self, one: Place) -> None:
        with pytest.raises(AlreadyExists):
            one.create()

    async def test_nothing_there_is_not_an_empty_store(self, tmp_path: Path) -> None:
        await refusal(NotFound, Place(tmp_path, 3, 1).open())

    async def test_too_few_drives_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidRequest):
            Place(tmp_path, 2, 2).create()

    async def test_another_run_directory_is_refused(self, five: Place, tmp_path: Path) -> None:
        async with await five.open() as meta:
            await fill(meta, 1)
            elsewhere = Place(tmp_path, 5, 2)
            shutil.copytree(five.run, tmp_path / "copy")
            other = await refusal(Unavailable, open_with_run(elsewhere, tmp_path / "other run"))
            assert "another run directory" in str(other)
            await fill(meta, 1, 1)


async def open_with_run(place: Place, run: Path) -> LocalMeta:
    from holdfast.meta.local.setup import open_local

    return await open_local(place.drives, store=STORE, run=run, disk=OsDisk(), randomness=Chance(), sizes=SMALL)


class TestLosses:
    @pytest.mark.parametrize("lost", [*combinations(range(5), 1), *combinations(range(5), 2)])
    async def test_any_m_drives_lost_between_two_runs(self, five: Place, lost: tuple[int, ...]) -> None:
        async with await five.open() as meta:
            await fill(meta, 20)
            await meta.checkpoint()
            await fill(meta, 20, 20)
        for number in lost:
            shutil.rmtree(five.root / f"drive{number}")
        async with await five.open() as meta:
            await check(meta, 40)
            await fill(meta, 10, 40)
            await meta.mend()
            status = meta.status()
            assert len(status.mirrors) == 3
            assert not set(status.mirrors) & {list(five.drives)[number] for number in lost}
        five.forget_views()
        async with await five.open() as meta:
            await check(meta, 50)

    @pytest.mark.parametrize("lost", list(combinations(range(5), 2)))
    async def test_any_m_drives_wiped_while_running(self, five: Place, lost: tuple[int, ...]) -> None:
        async with await five.open() as meta:
            await fill(meta, 20)
            for number in lost:
                shutil.rmtree(five.root / f"drive{number}")
            await fill(meta, 20, 20)
            await meta.mend()
            await fill(meta, 20, 40)
            await check(meta, 60)
        async with await five.open() as meta:
            await check(meta, 60)

    async def test_one_loss_after_the_other_with_mending_between(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 20)
        for number, drive in enumerate((0, 1)):
            shutil.rmtree(five.root / f"drive{drive}")
            async with await five.open() as meta:
                await meta.mend()
                await fill(meta, 10, 20 + 10 * number)
        # Both of the first mirrors are gone for good; now the third of the first, which leaves those brought up.
        five.forget_views()
        async with await five.open() as meta:
            await check(meta, 40)

    async def test_more_than_m_lost_is_refused_and_says_what_is_missing(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 5)
        for number in (0, 3, 4):
            (five.root / f"drive{number}").rename(five.root / f"away{number}")
        error = await refusal(Unavailable, five.open())
        for number in (0, 3, 4):
            assert list(five.drives)[number].hex() in str(error)
        (five.root / "away3").rename(five.root / "drive3")
        async with await five.open() as meta:
            await check(meta, 5)

    async def test_a_stale_mirror_starts_no_fork(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Care, "tend", lambda care: None)
        place = Place(tmp_path, 3, 1).create()
        async with await place.open() as meta:
            await fill(meta, 5)
        (tmp_path / "drive0").rename(tmp_path / "away0")
        async with await place.open() as meta:
            await fill(meta, 5, 5)
        # Only the stale mirror, and a witness that knows better.
        (tmp_path / "away0").rename(tmp_path / "drive0")
        (tmp_path / "drive1").rename(tmp_path / "away1")
        error = await refusal(Unavailable, place.open())
        assert "every mirror of the newest metadata is missing" in str(error)
        assert list(place.drives)[1].hex() in str(error)
        (tmp_path / "away1").rename(tmp_path / "drive1")
        async with await place.open() as meta:
            await check(meta, 10)

    async def test_two_drives_with_one_lost_are_read_only(self, tmp_path: Path) -> None:
        place = Place(tmp_path, 2, 1).create()
        async with await place.open() as meta:
            await fill(meta, 5)
        (tmp_path / "drive0").rename(tmp_path / "away0")
        async with await place.open() as meta:
            await check(meta, 5)
            assert "read-only" in str(await refusal(Unavailable, meta.commit([Put(b"x", b"")], token=token(9))))
            assert meta.status().read_only
            (tmp_path / "away0").rename(tmp_path / "drive0")
            await fill(meta, 5, 5)
            await check(meta, 10)

    async def test_drives_swapped_for_each_other_are_noticed(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 5)
        (five.root / "drive0").rename(five.root / "x")
        (five.root / "drive4").rename(five.root / "drive0")
        (five.root / "x").rename(five.root / "drive4")
        async with await five.open() as meta:
            await check(meta, 5)


class TestRot:
    @pytest.mark.parametrize("pattern", ["log-*", "checkpoint-*", "witness", "view-*/data.mdb"])
    @pytest.mark.parametrize("rotten", [(0,), (0, 1), (1, 2), (0, 2)])
    async def test_rot_on_any_m_mirrors_between_two_runs(
        self, five: Place, pattern: str, rotten: tuple[int, ...]
    ) -> None:
        async with await five.open() as meta:
            await fill(meta, 30)
            await meta.checkpoint()
            await fill(meta, 30, 30)
        for number in rotten:
            for path in (five.root / f"drive{number}" / "meta").glob(pattern):
                path.write_bytes(bytes(len(path.read_bytes())))
        if "view" not in pattern:
            five.forget_views()
        async with await five.open() as meta:
            await check(meta, 60)
            await fill(meta, 5, 60)
            await meta.verify()
            assert list(await meta.verify()) == []
        five.forget_views()
        async with await five.open() as meta:
            await check(meta, 65)

    @pytest.mark.parametrize("offset", [0, 30, 60, 100, 4095])
    async def test_a_record_that_rots_while_running_is_found_and_patched(self, five: Place, offset: int) -> None:
        async with await five.open() as meta:
            await fill(meta, 30)
            before = files(five, "log-*")[1].read_bytes()
            flip(files(five, "log-*")[1], 10 * 4096 + offset)
            findings = await meta.verify()
            if offset < 4000:
                assert [finding.what for finding in findings] == ["1 records of its log were damaged"]
                assert files(five, "log-*")[1].read_bytes() == before
            assert await meta.verify() == []

    async def test_records_that_rot_on_every_mirror_are_replaced_by_what_the_view_holds(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 30)
            for path in files(five, "log-*"):
                flip(path, 10 * 4096 + 20)
            assert [finding.repaired for finding in await meta.verify()] == [True]
            assert await meta.verify() == []
        five.forget_views()
        async with await five.open() as meta:
            await check(meta, 30)

    async def test_a_lost_record_is_not_passed_over(self, one: Place) -> None:
        async with await one.open() as meta:
            await fill(meta, 30)
        [path] = files(one, "log-*")
        flip(path, 10 * 4096 + 20)
        one.forget_views()
        await refusal(Corrupt, one.open())

    async def test_a_lost_beginning_of_a_segment_is_not_passed_over(self, one: Place) -> None:
        async with await one.open() as meta:
            await fill(meta, 80, size=1500)
        segments = files(one, "log-*")
        assert len(segments) > 1
        flip(segments[-1], 20)
        one.forget_views()
        await refusal(Corrupt, one.open())

    async def test_a_view_that_rots_while_running_is_found(self, five: Place) -> None:
        async with await five.open() as meta:
            await fill(meta, 300)
            [path] = files(five, "view-*/data.mdb")
            raw = bytearray(path.read_bytes())
            at = raw.rindex(b"299299299299")
            with path.open("r+b") as file:
                file.seek(at)
                file.write(b"xxxxxx")
            findings = await meta.verify()
            assert any("view" in finding.what for finding in findings)
            await check(meta, 300)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        [byte] = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 0x40]))


class TestRoster:
    async def test_drives_are_added_and_taken_away(self, tmp_path: Path) -> None:
        small, large = Place(tmp_path, 1, 0).create(), Place(tmp_path, 6, 2)
        async with await small.open() as meta, await small.open() as other:
            await fill(meta, 20)
            await meta.set_drives(large.drives, losses=2)
            await fill(other, 20, 20)
            assert len(meta.status().mirrors) == 3
            drives = list(large.drives.items())[1:]
            await other.set_drives(dict(drives), losses=2)
            assert len(meta.status().mirrors) == 3
            assert drives[0][0] in meta.status().mirrors
            await fill(meta, 20, 40)
        shutil.rmtree(tmp_path / "drive0")
        large.forget_views()
        forget_run(large)
        async with await large.open() as meta:
            await check(meta, 60)

    async def test_a_lost_drive_is_replaced(self, five: Place, tmp_path: Path) -> None:
        async with await five.open() as meta:
            await fill(meta, 20)
            shutil.rmtree(tmp_path / "drive1")
            drives = Place(tmp_path, 6, 2).drives
            del drives[list(drives)[1]]
            await meta.set_drives(drives, losses=2)
            await fill(meta, 20, 20)
        shutil.rmtree(tmp_path / "drive0")
        shutil.rmtree(tmp_path / "drive2")
        async with await Place(tmp_path, 6, 2).open() as meta:
            await check(meta, 40)

    async def test_a_drive_of_another_store_is_refused(self, five: Place, tmp_path: Path) -> None:
        from holdfast.core.ids import StoreId
        from holdfast.meta.local.setup import create_local

        foreign = Place(tmp_path / "foreign", 6, 2).drives
        last = list(foreign)[-1]
        create_local({last: foreign[last]}, store=StoreId(b"another---------"), losses=0, disk=OsDisk(), sizes=SMALL)
        async with await five.open() as meta:
            await refusal(AlreadyExists, meta.set_drives(five.drives | {last: foreign[last]}, losses=2))


class TestBackup:
    async def test_a_backup_of_a_live_store_restores_its_moment(self, five: Place, tmp_path: Path) -> None:
        async with await five.open() as meta:
            await fill(meta, 40)
            await meta.commit([Put(b"k" * 1500, b"long")], token=token(7))
            await meta.backup(tmp_path / "backup")
            await meta.commit([Delete(b"row 000001")], [HasToken(b"row 000001", token(1))], token=token(99))
            await refusal(AlreadyExists, meta.backup(tmp_path / "backup"))
        target = Place(tmp_path / "restored", 3, 1)
        restore_local(tmp_path / "backup", target.drives, store=STORE, losses=1, disk=OsDisk(), sizes=SMALL)
        for _ in range(2):
            async with await target.open() as meta:
                assert (await meta.get(b"k" * 1500)).value == b"long"
                rows = await scan_all(meta, KeyRange(b"row "), limit=100)
                assert len(rows) == 40
                await meta.commit([Put(b"more", b"")], token=token(8))
                await meta.verify()
            target.forget_views()

    async def test_a_damaged_backup_is_refused(self, one: Place, tmp_path: Path) -> None:
        async with await one.open() as meta:
            await fill(meta, 40)
            await meta.backup(tmp_path / "backup")
        flip(tmp_path / "backup", 5000)
        target = Place(tmp_path / "restored", 3, 1)
        with pytest.raises(HoldfastError):
            restore_local(tmp_path / "backup", target.drives, store=STORE, losses=1, disk=OsDisk(), sizes=SMALL)
        await refusal(NotFound, target.open())


class TestComingAndGoing:
    async def test_who_joins_while_the_last_one_leaves_is_the_first(
        self, one: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The one who leaves syncs the view and says that it may be believed after a boot. Who took it for a view in
        use would write to it without a sync, and the next boot would believe what a power cut left of it."""
        leaving: list[Run] = []
        close = Run.close

        def later(run: Run) -> None:
            leaving.append(run)

        async with await one.open() as meta:
            await fill(meta, 5)
            monkeypatch.setattr(Run, "close", later)
        monkeypatch.undo()
        async with await one.open() as meta:
            await fill(meta, 5, 5)
            for run in leaving:
                close(run)
            [origin] = files(one, "view-*/origin")
            assert msgspec.msgpack.decode(origin.read_bytes(), type=Origin).synced == b""
            await check(meta, 10)

    async def test_a_start_that_is_cancelled_keeps_the_lock_until_its_thread_has_ended(
        self, one: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        inside, go_on, ended = threading.Event(), threading.Event(), threading.Event()
        start = Store.start

        def slow(store: Store) -> None:
            inside.set()
            go_on.wait()
            start(store)
            ended.set()

        monkeypatch.setattr(Store, "start", slow)
        first = asyncio.ensure_future(one.open())
        await asyncio.to_thread(inside.wait)
        first.cancel()
        await asyncio.sleep(0)
        monkeypatch.undo()
        second = asyncio.ensure_future(one.open())
        await asyncio.wait((second,), timeout=0.05)
        assert not second.done()
        go_on.set()
        async with await second as meta:
            assert ended.is_set()
            await fill(meta, 1)
        with pytest.raises(asyncio.CancelledError):
            await first
