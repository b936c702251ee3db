"""Drives that are lost for good give their places to new ones, also when nothing can be committed for want of them."""

import shutil
from pathlib import Path

import pytest

from holdfast.core.errors import Unavailable
from holdfast.core.ids import DriveId, Token
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Put
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.setup import open_local
from tests.unit.meta.stores import SMALL, STORE, Chance, Place, drive_id


def token(number: int) -> Token:
    return Token(b"token %010d" % number)


def pull(root: Path, number: int) -> None:
    (root / f"drive{number}").rename(root / f"pulled{number}")


async def put(meta: LocalMeta, name: bytes) -> None:
    await meta.commit([Put(name, b"")], token=token(1))


def drives_of(root: Path, *numbers: int) -> dict[DriveId, Path]:
    return {drive_id(number): root / f"drive{number}" / "meta" for number in numbers}


async def reopened(root: Path, *numbers: int) -> LocalMeta:
    shutil.rmtree(root / "run", ignore_errors=True)
    return await open_local(
        drives_of(root, *numbers), store=STORE, run=root / "run", disk=OsDisk(), randomness=Chance(), sizes=SMALL
    )


@pytest.mark.parametrize("running", [True, False])
async def test_one_of_two(tmp_path: Path, running: bool) -> None:
    place = Place(tmp_path, 2, 1).create()
    meta = await place.open()
    await put(meta, b"before")
    if running:
        pull(tmp_path, 0)
    else:
        await meta.close()
        pull(tmp_path, 0)
        meta = await reopened(tmp_path, 0, 1)
    with pytest.raises(Unavailable):
        await meta.set_drives(drives_of(tmp_path, 1, 2), losses=1)
    await meta.replace_drives(drives_of(tmp_path, 2), heirs={drive_id(0): drive_id(2)})
    await put(meta, b"after")
    assert set(meta.status().roster) == set(meta.status().mirrors) == {drive_id(1), drive_id(2)}
    await meta.close()
    for left in (1, 2):
        meta = await reopened(tmp_path, left)
        assert (await meta.get(b"before")).key
        assert (await meta.get(b"after")).key
        await meta.close()


async def test_an_heir_that_has_a_place_already_counts_once(tmp_path: Path) -> None:
    """Taking in a new drive was cut off when it was promised a place; then it becomes the heir of the lost one."""
    meta = await Place(tmp_path, 2, 1).create().open()
    await put(meta, b"before")
    # No upkeep is under way that could find the drive gone before the roster is changed.
    await meta.mend()
    pull(tmp_path, 0)
    with pytest.raises(Unavailable):
        await meta.set_drives(drives_of(tmp_path, 1, 2), losses=1)
    await meta.replace_drives(drives_of(tmp_path, 2), heirs={drive_id(0): drive_id(2)})
    assert sorted(meta.status().roster) == [drive_id(1), drive_id(2)]
    await put(meta, b"after")
    await meta.close()
    for left in (1, 2):
        meta = await reopened(tmp_path, left)
        assert (await meta.get(b"after")).key
        await meta.close()


async def test_heirs_that_leave_too_few_drives_are_refused(tmp_path: Path) -> None:
    async with await Place(tmp_path, 2, 1).create().open() as meta:
        await put(meta, b"before")
        pull(tmp_path, 0)
        with pytest.raises(Unavailable, match="too few"):
            await meta.replace_drives({}, heirs={drive_id(0): drive_id(1)})


async def test_two_of_four_one_after_the_other(tmp_path: Path) -> None:
    meta = await Place(tmp_path, 4, 2).create().open()
    await put(meta, b"before")
    pull(tmp_path, 0)
    pull(tmp_path, 3)
    await meta.replace_drives(drives_of(tmp_path, 4), heirs={drive_id(0): drive_id(4)})
    await put(meta, b"between")
    await meta.replace_drives(drives_of(tmp_path, 5), heirs={drive_id(3): drive_id(5)})
    await put(meta, b"after")
    assert set(meta.status().roster) == {drive_id(number) for number in (1, 2, 4, 5)}
    assert len(meta.status().mirrors) == 3
    await meta.close()
    meta = await reopened(tmp_path, 1, 5)
    for name in (b"before", b"between", b"after"):
        assert (await meta.get(name)).key == name
    await meta.close()


async def test_no_more_may_be_lost_than_the_store_was_made_for(tmp_path: Path) -> None:
    meta = await Place(tmp_path, 4, 2).create().open()
    await put(meta, b"before")
    for number in (0, 1, 2):
        pull(tmp_path, number)
    with pytest.raises(Unavailable, match="cannot prove"):
        await meta.replace_drives(drives_of(tmp_path, 4), heirs={drive_id(0): drive_id(4)})
    await meta.close()
