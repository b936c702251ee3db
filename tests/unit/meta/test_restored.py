"""What is restored is the newest: a drive that was away brings no older history back."""

import shutil
from pathlib import Path

from holdfast.core.ids import Token
from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Put, Row
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.setup import restore_local
from tests.unit.meta.stores import SMALL, STORE, Place


async def put(meta: LocalMeta, *names: bytes) -> None:
    for name in names:
        await meta.commit([Put(name, b"")], token=Token(b"token-----------"))


async def names(meta: LocalMeta) -> list[bytes]:
    page = await meta.scan(KeyRange(b"row"), limit=100)
    return [entry.key for entry in page.entries if isinstance(entry, Row)]


async def test_a_drive_that_was_away_does_not_bring_the_old_back(tmp_path: Path) -> None:
    place = Place(tmp_path, 3, 1).create()
    async with await place.open() as meta:
        await put(meta, b"row 1", b"row 2")
        await meta.backup(tmp_path / "backup")
        await put(meta, b"row 3", b"row 4", b"row 5")
        epoch = meta.status().epoch
    for number in (1, 2):
        shutil.rmtree(tmp_path / f"drive{number}")
    present = dict(list(place.drives.items())[1:])
    shutil.rmtree(place.run)
    restore_local(tmp_path / "backup", present, store=STORE, losses=1, disk=OsDisk(), sizes=SMALL, epoch=epoch + 1000)
    for _ in range(2):
        # Drive 0 is back, with its log and its view of what was given up.
        shutil.rmtree(place.run, ignore_errors=True)
        async with await place.open() as meta:
            assert (await names(meta))[:2] == [b"row 1", b"row 2"]
            assert b"row 5" not in await names(meta)
            assert meta.status().epoch > epoch + 1000
            await put(meta, b"row 9")
