"""The real disk: whole writes, locks, atomic replacement, and what it falls back to."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from holdfast.drives import os_disk
from holdfast.drives.os_disk import OsDisk

DISK = OsDisk()


def test_short_writes_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev

    def short(descriptor: int, buffers: Any, offset: int) -> int:
        first = memoryview(buffers[0])
        return real(descriptor, [first[: max(1, min(len(first), 7))]], offset)

    monkeypatch.setattr(os_disk.os, "pwritev", short)  # type: ignore[attr-defined]
    file = DISK.open(tmp_path / "a", create=True)
    parts = [bytes([n]) * n for n in range(1, 30)]
    file.write(parts, 5)
    assert (tmp_path / "a").read_bytes() == bytes(5) + b"".join(parts)


def test_more_buffers_than_one_call_takes(tmp_path: Path) -> None:
    file = DISK.open(tmp_path / "a", create=True)
    parts = [b"%04d" % n for n in range(3000)]
    file.write(parts, 0)
    assert (tmp_path / "a").read_bytes() == b"".join(parts)


def test_reads_stop_at_the_end_of_the_file(tmp_path: Path) -> None:
    file = DISK.open(tmp_path / "a", create=True)
    file.write([b"12345"], 0)
    buffer = bytearray(10)
    assert file.read_into(memoryview(buffer), 2) == 3
    assert buffer[:3] == b"345"
    assert file.read_into(memoryview(buffer), 5) == 0


def test_cached_reads_never_answer_short(tmp_path: Path) -> None:
    file = DISK.open(tmp_path / "a", create=True)
    file.write([b"12345"], 0)
    buffer = bytearray(5)
    try:
        assert file.read_cached_into([memoryview(buffer)[:2], memoryview(buffer)[2:]], 0) == 5
        assert buffer == b"12345"
    except BlockingIOError:
        pass
    with pytest.raises(BlockingIOError):
        file.read_cached_into([memoryview(buffer)], 3)


def test_direct_falls_back_where_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refusing(path: Any, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, mode)

    monkeypatch.setattr(os_disk.os, "open", refusing)  # type: ignore[attr-defined]
    file = DISK.open(tmp_path / "a", create=True, direct=True)
    file.write([b"unaligned"], 3)
    file.sync()
    assert (tmp_path / "a").read_bytes() == b"\0\0\0unaligned"


def test_allocate_and_truncate(tmp_path: Path) -> None:
    file = DISK.open(tmp_path / "a", create=True)
    file.allocate(100_000)
    assert file.size() == 100_000
    assert (tmp_path / "a").stat().st_blocks * 512 >= 100_000
    file.allocate(50_000)
    assert file.size() == 100_000
    file.truncate(10)
    assert file.size() == 10


def test_locks(tmp_path: Path) -> None:
    one, two = DISK.open(tmp_path / "a", create=True), DISK.open(tmp_path / "a")
    one.lock(exclusive=False)
    two.lock(exclusive=False)
    with pytest.raises(BlockingIOError):
        one.lock(exclusive=True)
    two.unlock()
    one.lock(exclusive=True)
    with pytest.raises(BlockingIOError):
        two.lock(exclusive=False)
    one.close()
    two.lock(exclusive=True)


def test_is_at(tmp_path: Path) -> None:
    file = DISK.open(tmp_path / "a", create=True)
    assert file.is_at(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    assert not file.is_at(tmp_path / "a")
    assert file.is_at(tmp_path / "b")
    DISK.open(tmp_path / "a", create=True)
    assert not file.is_at(tmp_path / "a")


def test_replace_file_leaves_one_file(tmp_path: Path) -> None:
    DISK.replace_file(tmp_path / "a", b"old", mode=0o644)
    DISK.replace_file(tmp_path / "a", b"new", mode=0o600)
    assert DISK.list_directory(tmp_path) == ["a"]
    assert DISK.read_file(tmp_path / "a") == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600


def test_directories(tmp_path: Path) -> None:
    DISK.make_directory(tmp_path / "x" / "y")
    DISK.make_directory(tmp_path / "x" / "y")
    DISK.rename(tmp_path / "x" / "y", tmp_path / "x" / "z")
    DISK.sync_directory(tmp_path / "x")
    assert DISK.list_directory(tmp_path / "x") == ["z"]
    assert not DISK.exists(tmp_path / "x" / "y")


def test_mounts_and_kinds(tmp_path: Path) -> None:
    assert DISK.mount(tmp_path) == DISK.mount(tmp_path)
    assert DISK.mount(Path("/proc")) != DISK.mount(tmp_path)
    assert DISK.kind(Path("/proc/self")) == "proc"
    assert DISK.kind(tmp_path)
    space = DISK.space(tmp_path)
    assert 0 <= space.free <= space.total


def test_a_kernel_without_unique_mount_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os_disk.ctypes, "CDLL", lambda *_, **__: object())  # type: ignore[attr-defined]
    assert "/i" in DISK.mount(tmp_path)
    assert DISK.mount(tmp_path) != DISK.mount(Path("/proc"))
