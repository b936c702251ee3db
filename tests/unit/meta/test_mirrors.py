"""What a start makes of mirrors that are not all alike, and of what lies behind the log's end."""

import errno
import shutil
from pathlib import Path

import pytest

from holdfast.core.errors import Full, Unavailable
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Delete, Put
from holdfast.meta.local.care import Care
from holdfast.meta.local.log import ALIGN_BYTES, HEADER_BYTES, Position, comes_later, encode_record
from holdfast.testing.faulty_disk import Fault, FaultyDisk
from holdfast.testing.meta_suite import token
from tests.unit.meta.stores import Place
from tests.unit.meta.test_life import check, files, fill

LOOKS_LIKE_A_HEADER = b"HFL1" + b"a" * (HEADER_BYTES - 4)
"""What a client may choose for a key."""


@pytest.mark.parametrize("before", [5, 70])
async def test_a_mirror_that_was_put_back_to_an_older_moment_is_none(tmp_path: Path, before: int) -> None:
    """A start completes the last record on every mirror. With that one, but without those before it, the older mirror
    looked whole; had the other been lost next, so had the commits in between."""
    place = Place(tmp_path, 3, 1).create()
    older = tmp_path / "drive1"
    async with await place.open() as meta:
        await fill(meta, before)
    shutil.copytree(older, tmp_path / "snapshot")
    async with await place.open() as meta:
        await fill(meta, 5, before)
    shutil.rmtree(older)
    (tmp_path / "snapshot").rename(older)
    place.forget_views()
    async with await place.open() as meta:
        await check(meta, before + 5)
        await meta.mend()
    shutil.rmtree(tmp_path / "drive0")
    async with await place.open() as meta:
        await check(meta, before + 5)


async def test_a_segment_that_cannot_be_taken_back_is_settled_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mirror has no room for another segment, and that of the other stays: small commits would go on in the segment
    before, which upkeep of that mirror would take for one that ends where the other begins, and remove."""
    monkeypatch.setattr(Care, "tend", lambda care: None)
    disk = FaultyDisk(OsDisk())
    place = Place(tmp_path, 3, 1).create()
    async with await place.open(disk) as meta:
        await fill(meta, 20)
        for spare in files(place, "spare"):
            spare.unlink()
        disk.faults.append(Fault("allocate", "drive0/meta", error=errno.ENOSPC))
        disk.faults.append(Fault("unlink", "drive1/meta/log-", times=1))
        with pytest.raises(Unavailable) as refused:
            await meta.commit([Put(b"large", bytes(1 << 20))], token=token(1))
        assert not isinstance(refused.value, Full)
        await meta.commit([Delete(b"large")], token=token(2))
        one, two = (sorted(path.name for path in files(place, "log-*") if drive in path.parts) for drive in DRIVES)
        assert one == two
        await check(meta, 20)


DRIVES = ("drive0", "drive1")


async def test_what_looks_like_a_header_behind_the_end_is_no_lost_commit(tmp_path: Path) -> None:
    """Rows' keys are not sealed, and clients choose them: what a record that was cut off left behind may be theirs."""
    place = Place(tmp_path, 1, 0).create()
    async with await place.open() as meta:
        await fill(meta, 5)
    [log] = files(place, "log-*")
    with log.open("r+b") as file:
        for block in range(6, 12):
            file.seek(block * ALIGN_BYTES)
            file.write(LOOKS_LIKE_A_HEADER)
    place.forget_views()
    async with await place.open() as meta:
        await check(meta, 5)
        await fill(meta, 5, 5)


def test_a_later_record_is_one_that_could_be_there() -> None:
    end = Position(1, 0, ALIGN_BYTES, 7, bytes(32))
    header = b"".join(encode_record(b"x", epoch=1, after=end._replace(sequence=9))[0])[:HEADER_BYTES]
    assert [comes_later(header, end, most) for most in (0, 1, 2, 100)] == [False, False, True, True]
    assert not comes_later(header, end._replace(sequence=9), 100)
    assert not comes_later(header[:-1], end, 100)
    assert not comes_later(LOOKS_LIKE_A_HEADER, end, 1 << 20)
