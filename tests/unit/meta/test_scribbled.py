"""LMDB's table of locks, written over while the view is open; and a disk that has no room for a second view."""

import asyncio
import multiprocessing
import os
from collections.abc import AsyncIterator
from pathlib import Path

import lmdb
import pytest

from holdfast.core.errors import Unavailable
from holdfast.meta.interface import Put
from holdfast.meta.local import care
from holdfast.meta.local.care import Care
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.view import open_view
from holdfast.testing.meta_suite import token
from tests.unit.meta.stores import Place

# Far more than a few commits take, and far less than for ever.
ANSWER_SECONDS = 60

DONE_STATUS = 3


def commit_around_it(place: Place) -> None:
    async def work() -> None:
        meta = await place.open()
        await meta.commit([Put(b"a", b"1")], token=token(1))
        [table] = place.root.glob("drive*/meta/view-*/lock.mdb")
        with table.open("r+b") as file:
            file.write(b"\1" * table.stat().st_size)
        # It may be told to try again, when the view was made anew for it.
        for number in range(3):
            try:
                await meta.commit([Put(b"b", b"2")], token=token(2 + number))
            except Unavailable:
                continue
            break
        rows = await meta.get_many([b"a", b"b"])
        assert [row.value for row in rows if row is not None] == [b"1", b"2"]
        [now] = place.root.glob("drive*/meta/view-*/lock.mdb")
        assert now != table
        os._exit(DONE_STATUS)

    asyncio.run(work())


def test_locks_that_were_written_over_are_not_waited_for(tmp_path: Path) -> None:
    place = Place(tmp_path, 1, 0).create()
    child = multiprocessing.get_context("spawn").Process(target=commit_around_it, args=(place,))
    child.start()
    child.join(ANSWER_SECONDS)
    child.kill()
    child.join()
    assert child.exitcode == DONE_STATUS


def views(root: Path) -> list[Path]:
    return list(root.glob("drive*/meta/view-*"))


def test_the_table_has_no_holes(tmp_path: Path) -> None:
    view = open_view(tmp_path, 1 << 30, create=True)
    status = (tmp_path / "lock.mdb").stat()
    assert status.st_blocks * 512 >= status.st_size
    view.close()


@pytest.fixture
async def meta(tmp_path: Path) -> AsyncIterator[LocalMeta]:
    meta = await Place(tmp_path, 1, 0).create().open()
    await meta.commit([Put(b"a", b"1")], token=token(1))
    yield meta
    await meta.close()


async def test_without_room_for_a_second_view_the_first_is_not_compared(
    meta: LocalMeta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = views(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Care, "_has_room", lambda care, path, size: False)
        [finding] = await meta.verify()
    assert "no drive has room" in finding.what
    assert not finding.repaired
    assert views(tmp_path) == before
    assert await meta.verify() == []


async def test_a_second_view_that_fails_does_not_condemn_the_first(
    meta: LocalMeta, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The room went while it was made, say."""
    before = views(tmp_path)

    def full(*_: object) -> None:
        raise lmdb.DiskError("mdb_put: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(care, "_replay", full)
        with pytest.raises(Unavailable, match="No space left"):
            await meta.verify()
    assert views(tmp_path) == before
    assert await meta.verify() == []
