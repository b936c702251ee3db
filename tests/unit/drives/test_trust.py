"""When the index is believed, and when it is made again."""

import asyncio
import shutil
from pathlib import Path

import msgspec
import pytest
from xxhash import xxh3_64_intdigest

from holdfast.core.errors import InvalidRequest, NotFound
from holdfast.drives.directory import DirectoryDrive
from holdfast.drives.os_disk import OsDisk
from holdfast.drives.records import PAGE_BYTES, Head, Kind, Place, aligned, encode_head, payload_checksums
from holdfast.drives.segments import FIRST_GENERATION, scan, segment_of
from holdfast.testing.drive_suite import assert_holds, key_of, make_fragment, refusal
from tests.unit.drives.opened import Opened


def state_of(path: Path) -> list[object]:
    state: list[object] = msgspec.msgpack.decode((path / "index" / "state").read_bytes())
    return state


def environment_of(path: Path) -> str:
    return str(state_of(path)[1])


def set_mount(path: Path, mount: str, *, clean: bool) -> None:
    state = state_of(path)
    state[2:] = [mount, clean]
    (path / "index" / "state").write_bytes(msgspec.msgpack.encode(state))


async def killed(opened: Opened, copy: Path) -> Opened:
    """A copy of the drive as it is now, with nobody in it: what a killed process leaves."""
    shutil.copytree(opened.path, copy)
    return Opened(copy, create=False, seed=2)


async def filled(opened: Opened) -> DirectoryDrive:
    drive = await opened.open()
    await drive.put([make_fragment(number) for number in range(5)])
    await drive.delete([key_of(1)])
    return drive


async def test_a_clean_close_is_trusted_under_any_mount(opened: Opened) -> None:
    await filled(opened)
    await opened.close()
    assert state_of(opened.path)[3] is True
    set_mount(opened.path, "another", clean=True)
    before = environment_of(opened.path)
    drive = await opened.open()
    assert environment_of(opened.path) == before
    assert state_of(opened.path)[2:] == [OsDisk().mount(opened.path), False]
    await assert_holds(drive, make_fragment(0))


async def test_a_killed_process_leaves_a_trusted_index(opened: Opened, tmp_path: Path) -> None:
    await filled(opened)
    left = await killed(opened, tmp_path / "left")
    before = environment_of(left.path)
    drive = await left.open()
    assert environment_of(left.path) == before
    assert await drive.has([key_of(n) for n in range(5)]) == [True, False, True, True, True]
    await left.close()


async def test_an_index_from_before_a_power_cut_is_not_looked_at(opened: Opened, tmp_path: Path) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(0), make_fragment(1)])
    stale = environment_of(opened.path)
    shutil.copytree(opened.path / "index" / stale, tmp_path / "stale")
    await drive.put([make_fragment(2)])
    await drive.delete([key_of(0)])
    left = await killed(opened, tmp_path / "left")
    # The power cut: the segments were synced, the index is an old and sound one.
    shutil.rmtree(left.path / "index" / stale)
    shutil.copytree(tmp_path / "stale", left.path / "index" / stale)
    set_mount(left.path, "before the power cut", clean=False)
    drive = await left.open()
    assert environment_of(left.path) != stale
    assert await drive.has([key_of(n) for n in range(3)]) == [False, True, True]
    await left.close()


async def test_what_others_have_open_is_trusted_under_any_mount(opened: Opened) -> None:
    drive = await filled(opened)
    before = environment_of(opened.path)
    set_mount(opened.path, "as another container sees it", clean=False)
    second = await opened.open()
    assert environment_of(opened.path) == before
    await second.put([make_fragment(9)])
    await assert_holds(drive, make_fragment(9))


@pytest.mark.parametrize("damage", ["state", "garbage state", "header", "short", "gone"])
async def test_a_damaged_index_is_made_again(opened: Opened, damage: str) -> None:
    await filled(opened)
    await opened.close()
    data = opened.path / "index" / environment_of(opened.path) / "data.mdb"
    if damage == "state":
        (opened.path / "index" / "state").unlink()
    elif damage == "garbage state":
        (opened.path / "index" / "state").write_bytes(b"\xff\x00garbage")
    elif damage == "header":
        data.write_bytes(b"\0" * data.stat().st_size)
    elif damage == "short":
        data.write_bytes(data.read_bytes()[: 3 * 4096])
    else:
        data.unlink()
    drive = await opened.open()
    assert await drive.has([key_of(n) for n in range(5)]) == [True, False, True, True, True]
    await assert_holds(drive, make_fragment(2))
    assert len([path for path in (opened.path / "index").iterdir() if path.is_dir()]) == 1


async def test_what_a_killed_process_wrote_but_did_not_index_never_was(opened: Opened, tmp_path: Path) -> None:
    drive = await opened.open()
    await drive.put([make_fragment(0)])
    left = await killed(opened, tmp_path / "left")
    # Synced, but the process died before it told the index; then others deleted what "is not there".
    (path,) = left.segments()
    append_commit(path, number=7)
    drive = await left.open()
    await refusal(NotFound, drive.get(key_of(7)))
    await drive.delete([key_of(7)])
    await left.close()
    shutil.rmtree(left.path / "index")
    drive = await left.open()
    await refusal(NotFound, drive.get(key_of(7)))
    await assert_holds(drive, make_fragment(0))
    await left.close()


def append_commit(path: Path, number: int) -> None:
    """Append a group commit with one fragment to an open segment, as its owner would."""
    segment = segment_of(path.name)
    assert segment is not None
    file = OsDisk().open(path)
    contents = scan(file, segment)
    fragment = make_fragment(number)
    sums = payload_checksums(fragment.payload)
    sizes = len(fragment.commitment) + len(fragment.leaves) + len(fragment.tag) + len(sums)
    span = aligned(sizes + len(fragment.payload) + 200, PAGE_BYTES)
    page = bytearray(span)
    place = Place(segment, contents.end, span)
    sequence = 1 + max(entry.sequence for entry in contents.entries)
    head = Head(
        Kind.FRAGMENT,
        fragment.key,
        sequence,
        100,
        place,
        fragment.tag,
        fragment.commitment,
        fragment.leaves,
        sums,
        len(fragment.payload),
    )
    record = encode_head(head, FIRST_GENERATION) + fragment.payload
    page[: len(record)] = record
    file.write([page], contents.end)
    file.close()


async def test_a_segment_of_a_newer_version_is_left_alone(opened: Opened) -> None:
    await filled(opened)
    await opened.close()
    newer = opened.path / "segments" / "00000000000000ff.segment"
    header = b"hfS\x02" + (1).to_bytes(4, "little") + bytes.fromhex("00000000000000ff") + bytes(16)
    newer.write_bytes((header + xxh3_64_intdigest(header).to_bytes(8, "little")).ljust(PAGE_BYTES, b"\0"))
    await refusal(InvalidRequest, opened.open())
    assert newer.exists()


async def test_a_segment_of_another_drive_is_ignored(opened: Opened, tmp_path: Path) -> None:
    other = Opened(tmp_path / "other", seed=5)
    drive = await other.open()
    await drive.put([make_fragment(50)])
    await other.close()
    await filled(opened)
    await opened.close()
    (segment,) = other.segments()
    shutil.copy(segment, opened.path / "segments" / segment.name)
    shutil.rmtree(opened.path / "index")
    drive = await opened.open()
    assert await drive.has([key_of(50), key_of(0)]) == [False, True]
    assert (opened.path / "segments" / segment.name).exists()


async def test_nobody_indexes_while_somebody_rebuilds(opened: Opened) -> None:
    drive = await filled(opened)
    gate = OsDisk().open(opened.path / "index" / "gate")
    gate.lock(exclusive=True)
    put = asyncio.create_task(drive.put([make_fragment(9)]))
    await asyncio.sleep(0.1)
    assert not put.done()
    gate.unlock()
    await put


async def test_nobody_rebuilds_while_somebody_indexes(opened: Opened) -> None:
    drive = await filled(opened)
    gate = OsDisk().open(opened.path / "index" / "gate")
    gate.lock(exclusive=False)
    (opened.path / "index" / environment_of(opened.path) / "data.mdb").unlink()
    has = asyncio.create_task(drive.has([key_of(0)]))
    await asyncio.sleep(0.1)
    assert not has.done()
    gate.unlock()
    assert await has == [True]
