"""Which view a start believes, after deaths that left several."""

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from holdfast.core.errors import Unavailable
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Delete, Put
from holdfast.meta.local import care, hold
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.log import Position
from holdfast.meta.local.mirrors import MirrorSet
from holdfast.meta.local.run import APPENDING
from holdfast.meta.local.setup import open_local
from holdfast.meta.local.view import Transaction, View
from holdfast.testing.meta_suite import refusal, token
from tests.unit.meta.stores import SMALL, STORE, Place
from tests.unit.meta.test_life import check, files, fill, flip


class Named:
    """Chance that names views in a given order: a start looks at them in the order of their names."""

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers

    def bytes(self, count: int) -> bytes:
        return next(self._numbers).to_bytes(8) if count == 8 else os.urandom(count)


async def open_named(place: Place, numbers: Iterator[int]) -> LocalMeta:
    return await open_local(
        place.drives, store=STORE, run=place.run, disk=OsDisk(), randomness=Named(numbers), sizes=SMALL
    )


def leave_it(view: View) -> None:
    """In place of `discard_view`, by one who dies before."""
    view.close()


async def test_a_view_that_was_found_wrong_is_not_believed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that put a right one in its place died before it could remove the wrong one."""
    place = Place(tmp_path, 1, 0).create()
    async with await open_named(place, itertools.count()) as meta:
        await fill(meta, 40)
        [path] = files(place, "view-*/data.mdb")
        at = path.read_bytes().rindex(b"393939393939")
        flip(path, at)
        with monkeypatch.context() as dying:
            dying.setattr(hold, "discard_view", leave_it)
            assert any("view" in finding.what for finding in await meta.verify())
        assert len(files(place, "view-*")) == 2
    async with await place.open() as meta:
        await check(meta, 40)
        assert await meta.verify() == []


async def test_a_view_that_stopped_half_way_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who compares the view with the log makes a second one, and may die over it. A store that can only be read
    brings no view forward: what it shows must be the one that had everything."""
    place = Place(tmp_path, 2, 1).create()
    async with await open_named(place, itertools.count(1000, -1)) as meta:
        await fill(meta, 30)
        await meta.checkpoint()
        await fill(meta, 30, 30)

        def dying(log: MirrorSet, view: View, end: Position) -> None:
            raise Unavailable("killed")

        with monkeypatch.context() as patch:
            patch.setattr(care, "_replay", dying)
            patch.setattr(care, "discard_view", leave_it)
            await refusal(Unavailable, meta.verify())
        assert len(files(place, "view-*")) == 2
    shutil.move(tmp_path / "drive1", tmp_path / "away1")
    async with await place.open() as meta:
        await check(meta, 60)
        await refusal(Unavailable, meta.commit([Put(b"x", b"")], token=token(1)))


@pytest.mark.parametrize("why", [lmdb.DiskError("No space left on device"), lmdb.CorruptedError("damaged")])
async def test_a_record_that_a_dead_process_left_reaches_a_view_that_cannot_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: lmdb.Error
) -> None:
    """The view is full or damaged: whoever comes next must make room or another view, or nobody ever commits again."""
    place = Place(tmp_path, 1, 0).create()
    async with await place.open() as meta:
        await fill(meta, 5)
        broken = files(place, "view-*")
        writing = View.writing

        def failing(view: View) -> Transaction:
            if view.path in broken:
                raise why
            return writing(view)

        monkeypatch.setattr(View, "writing", failing)
        meta._run.dirty = APPENDING
        await meta.commit([Delete(b"nothing")], token=token(1))
        await meta.mend()
        await fill(meta, 5, 5)
        await check(meta, 10)
