"""An index that is being made again: nobody reads it before it is complete, and what is given up leaves nothing."""

import asyncio
import shutil
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from holdfast.core.errors import Full, NodeDown
from holdfast.drives import trust
from holdfast.drives.environment import Environment
from holdfast.drives.rebuild import fill
from holdfast.drives.segments import Contents
from holdfast.drives.trust import TrustedEnvironment
from holdfast.testing.drive_suite import assert_holds, key_of, make_fragment, refusal
from tests.unit.drives.opened import Opened
from tests.unit.drives.test_trust import environment_of

Segments = Iterable[tuple[bytes, Contents]]


def environments(opened: Opened) -> set[str]:
    return {entry.name for entry in (opened.path / "index").iterdir() if entry.is_dir()}


async def test_nobody_reads_an_index_before_it_is_complete(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, go_on = threading.Event(), threading.Event()

    def fill_later(environment: Environment, segments: Segments) -> None:
        empty.set()
        go_on.wait()
        fill(environment, segments)

    drive = await opened.open()
    await drive.put([make_fragment(0)])
    monkeypatch.setattr(trust, "fill", fill_later)
    (opened.path / "index" / environment_of(opened.path) / "data.mdb").unlink()
    has = asyncio.create_task(drive.has([key_of(0)]))
    await asyncio.to_thread(empty.wait)
    try:
        with pytest.raises(BlockingIOError):
            drive.get_at_once(key_of(0))
    finally:
        go_on.set()
    assert await has == [True]
    await assert_holds(drive, make_fragment(0))


async def test_an_index_that_could_not_be_filled_is_not_read_and_takes_no_room(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_in_vain(environment: Environment, segments: Segments) -> None:
        fill(environment, ())
        raise Full("no space left")

    drive = await opened.open()
    await drive.put([make_fragment(0)])
    before = environments(opened)
    (opened.path / "index" / environment_of(opened.path) / "data.mdb").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(trust, "fill", fill_in_vain)
        for _ in range(3):
            await refusal(Full, drive.has([key_of(0)]))
            with pytest.raises(BlockingIOError):
                drive.get_at_once(key_of(0))
        assert environments(opened) == before
    assert await drive.has([key_of(0)]) == [True]
    assert environments(opened) == {environment_of(opened.path)} != before


async def test_who_is_killed_at_the_end_of_a_rebuild_leaves_no_two_indexes(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others, who had the old one open, would go on writing to it, while whoever came later opened the new one."""
    write_state = TrustedEnvironment._write_state

    def write_state_late(self: TrustedEnvironment, *arguments: Any, **options: Any) -> None:
        shutil.copytree(opened.path, tmp_path / "left")
        write_state(self, *arguments, **options)

    drive = await opened.open()
    await drive.put([make_fragment(0)])
    (opened.path / "index" / environment_of(opened.path) / "data.mdb").write_bytes(b"")
    with monkeypatch.context() as patched:
        patched.setattr(TrustedEnvironment, "_write_state", write_state_late)
        assert await drive.has([key_of(0)]) == [True]
    left = Opened(tmp_path / "left", create=False, seed=2)
    assert environment_of(left.path) not in environments(left)
    await assert_holds(await left.open(), make_fragment(0))
    assert environments(left) == {environment_of(left.path)}
    await left.close()


async def test_an_index_that_the_state_file_does_not_name_is_not_read(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("the disk does not answer")

    drive = await opened.open()
    await drive.put([make_fragment(0)])
    (opened.path / "index" / environment_of(opened.path) / "data.mdb").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(TrustedEnvironment, "_write_state", fails)
        await refusal(NodeDown, drive.has([key_of(0)]))
        with pytest.raises(BlockingIOError):
            drive.get_at_once(key_of(0))
    assert await drive.has([key_of(0)]) == [True]
    assert environments(opened) == {environment_of(opened.path)}
