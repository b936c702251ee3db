"""Uploads and downloads when things go wrong: files that change, connections that end, answers that are lost."""

import fcntl
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.download import BROKEN_MAX_COUNT, Downloaded, Downloader
from holdfast.cli.client.landing import InTheWay
from holdfast.cli.client.upload import PART_BYTES, WHOLE_MAX_BYTES, Uploaded, Uploader, part_bytes_for
from holdfast.core.errors import Corrupt, Full, InvalidRequest, NotFound, PreconditionFailed, Unavailable
from holdfast.core.limits import GIB, MIB, OBJECT_MAX_BYTES, PARTS_MAX_COUNT, TIB
from tests.unit.cli.client.fake_s3 import WRITTEN, FakeS3, etag

SMALL = Random(1).randbytes(300_000)
LARGE = Random(2).randbytes(WHOLE_MAX_BYTES + 5 * MIB)
REMOTE = Remote("bucket", "key")


@pytest.fixture
def crew() -> Iterator[Crew]:
    crew = Crew(2)
    yield crew
    crew.close()


@pytest.fixture
def put(crew: Crew, tmp_path: Path) -> Callable[..., Uploaded]:
    def put(s3: FakeS3, path: Path, **headers: Any) -> Uploaded:
        connection = cast(Connection, s3)
        return Uploader(connection, crew, tmp_path / "notes", lambda _: None, headers).put_file(path, REMOTE)

    return put


@pytest.fixture
def get(crew: Crew) -> Callable[..., Downloaded]:
    def get(s3: FakeS3, target: Path, size: int | None = None) -> Downloaded:
        return Downloader(cast(Connection, s3), crew, lambda _: None).get_file(REMOTE, target, size=size)

    return get


def test_small_is_one_request_and_large_goes_in_parts(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    path, s3 = tmp_path / "a.txt", FakeS3()
    path.write_bytes(SMALL)
    assert put(s3, path).size == len(SMALL)
    assert [(name, given["ContentType"]) for name, given in s3.calls] == [("put_object", "text/plain")]
    path.write_bytes(LARGE)
    put(s3, path)
    assert s3.objects == {"key": LARGE}
    assert s3.count("upload_part") == 3


def test_parts_that_arrived_are_checked_and_kept(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    path, s3 = tmp_path / "a", FakeS3()
    path.write_bytes(LARGE)

    def cut_off() -> None:
        raise Unavailable("the connection ended")

    s3.before["complete_multipart_upload"] = cut_off
    with pytest.raises(Unavailable):
        put(s3, path)
    s3.before.clear()
    [parts] = s3.uploads.values()
    parts[2] = b"rotten" + parts[2][6:]
    del parts[3]
    assert put(s3, path).resumed_bytes == PART_BYTES
    assert s3.objects == {"key": LARGE}
    assert s3.count("create_multipart_upload") == 1
    assert s3.count("upload_part") == 3 + 2


def test_an_upload_that_the_server_forgot_begins_anew(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    path, s3 = tmp_path / "a", FakeS3()
    path.write_bytes(LARGE)
    s3.before["complete_multipart_upload"] = lambda: (_ for _ in ()).throw(Unavailable("now"))
    with pytest.raises(Unavailable):
        put(s3, path)
    s3.before.clear()
    s3.uploads.clear()
    assert put(s3, path).resumed_bytes == 0
    assert s3.objects == {"key": LARGE}


@pytest.mark.parametrize("body", [SMALL, LARGE])
def test_a_file_that_changes_is_not_stored_half(
    body: bytes, put: Callable[..., Uploaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, s3, read = tmp_path / "a", FakeS3(), os.pread
    path.write_bytes(body)

    def read_and_change(descriptor: int, length: int, offset: int) -> bytes:
        data = read(descriptor, length, offset)
        os.utime(path, (1, 1))
        return data

    monkeypatch.setattr(os, "pread", read_and_change)
    with pytest.raises(PreconditionFailed, match="changed while it was read"):
        put(s3, path)
    assert s3.objects == {}
    assert s3.uploads == {}


def test_a_file_that_becomes_shorter(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    path, s3 = tmp_path / "a", FakeS3()
    path.write_bytes(LARGE)
    s3.before["create_multipart_upload"] = lambda: os.truncate(path, 100)
    with pytest.raises(PreconditionFailed, match="shorter"):
        put(s3, path)
    assert s3.objects == {}


def test_a_lost_answer_to_the_completion_is_settled(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    path, s3 = tmp_path / "a", FakeS3()
    path.write_bytes(LARGE)

    def done_already() -> None:
        s3.objects["key"] = LARGE
        s3.uploads.clear()

    s3.before["complete_multipart_upload"] = done_already
    assert put(s3, path).size == len(LARGE)

    def somebody_elses() -> None:
        s3.objects["key"] = LARGE[::-1]
        s3.uploads.clear()

    s3.before["complete_multipart_upload"] = somebody_elses
    with pytest.raises(NotFound):
        put(s3, path)


def test_a_server_that_stores_other_bytes_is_found_out(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    class Wrong(FakeS3):
        def _put_object(self, key: str, Body: bytes, **given: Any) -> dict[str, Any]:
            return super()._put_object(key, Body[:-1] + b"x", **given)

    (tmp_path / "a").write_bytes(SMALL)
    for knows in (True, False):
        with pytest.raises(Corrupt, match="other bytes than were sent"):
            put(Wrong(sends_checksums=knows), tmp_path / "a")


def test_an_old_server_is_sent_md5s(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    s3 = FakeS3(sends_checksums=False)
    (tmp_path / "a").write_bytes(LARGE)
    put(s3, tmp_path / "a")
    assert s3.objects == {"key": LARGE}
    assert all("ContentMD5" in given for name, given in s3.calls if name == "upload_part")
    assert not any("Checksum" in name for _, given in s3.calls for name in given)


def test_what_is_no_file_is_no_upload(put: Callable[..., Uploaded], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path, InvalidRequest), (tmp_path / "pipe", InvalidRequest), (tmp_path / "no", NotFound)):
        with pytest.raises(kind):
            put(FakeS3(), path)


def test_a_stream_that_fails_leaves_no_upload(crew: Crew, tmp_path: Path) -> None:
    s3 = FakeS3()
    uploader = Uploader(cast(Connection, s3), crew, tmp_path, lambda _: None)
    for body in (b"", SMALL, LARGE, LARGE[:WHOLE_MAX_BYTES]):
        uploader.put_stream(io.BytesIO(body), REMOTE)
        assert s3.objects == {"key": body}

    class Broken(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if self.tell() > WHOLE_MAX_BYTES:
                raise OSError("gone")
            return super().read(count)

    with pytest.raises(OSError, match="gone"):
        uploader.put_stream(Broken(LARGE), REMOTE)
    assert s3.uploads == {}
    assert len(s3.aborted) == 1


@pytest.mark.parametrize("size", [1, GIB, 80 * GIB, 5 * TIB, OBJECT_MAX_BYTES])
def test_parts_are_few_enough(size: int) -> None:
    length = part_bytes_for(size)
    assert length >= PART_BYTES
    assert -(-size // length) <= PARTS_MAX_COUNT


@pytest.mark.parametrize("body", [b"", SMALL, LARGE])
def test_connections_that_end_are_gone_on_with(body: bytes, get: Callable[..., Downloaded], tmp_path: Path) -> None:
    s3 = FakeS3({"key": body}, breaks_after=lambda number: 200_000 if number <= 3 else None)
    assert get(s3, tmp_path / "a").size == len(body)
    assert (tmp_path / "a").read_bytes() == body
    assert (tmp_path / "a").stat().st_mtime == WRITTEN.timestamp()
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("body", [SMALL, LARGE])
def test_a_connection_that_ends_for_ever_leaves_no_file(
    body: bytes, get: Callable[..., Downloaded], tmp_path: Path
) -> None:
    s3 = FakeS3({"key": body}, breaks_after=lambda _: 0)
    with pytest.raises(Unavailable, match=f"ended {BROKEN_MAX_COUNT} times"):
        get(s3, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("body", [SMALL, LARGE])
def test_wrong_bytes_never_get_the_name(body: bytes, get: Callable[..., Downloaded], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"before")
    s3 = FakeS3({"key": body}, sends_checksums=False, etags={"key": etag(b"something else")})
    with pytest.raises(Corrupt, match="the bytes that arrived"):
        get(s3, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"before"


def test_overwritten_meanwhile_it_is_the_new_one(get: Callable[..., Downloaded], tmp_path: Path) -> None:
    s3, new = FakeS3({"key": LARGE}), LARGE[::-1]

    def overwrite() -> None:
        if s3.count("get_object") == 2:
            s3.objects["key"] = new

    s3.before["get_object"] = overwrite
    get(s3, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == new
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_cannot_be_checked_is_not_gone_on_with(get: Callable[..., Downloaded], tmp_path: Path) -> None:
    s3 = FakeS3({"key": LARGE}, sends_checksums=False, etags={"key": '"0123456789abcdef0123456789abcdef-7"'})
    s3.breaks_after = lambda number: None if number == 1 else 0
    with pytest.raises(Unavailable):
        get(s3, tmp_path / "a")
    s3.breaks_after = lambda _: None
    assert get(s3, tmp_path / "a").resumed_bytes == 0
    assert (tmp_path / "a").read_bytes() == LARGE


def test_a_server_without_ranges_is_told_of(get: Callable[..., Downloaded], tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="does not answer ranges"):
        get(FakeS3({"key": LARGE}, ignores_ranges=True), tmp_path / "a")


def test_a_full_disk_is_found_before_anything_is_fetched(
    get: Callable[..., Downloaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = list(os.statvfs(tmp_path))
    status[4] = 10  # blocks that an ordinary user may still take
    monkeypatch.setattr(os, "fstatvfs", lambda _: os.statvfs_result(status))
    s3 = FakeS3({"key": LARGE})
    with pytest.raises(Full, match="make room first"):
        get(s3, tmp_path / "a")
    assert s3.count("get_object") == 0


def test_two_who_fetch_the_same_do_not_mix(get: Callable[..., Downloaded], tmp_path: Path) -> None:
    s3 = FakeS3({"key": LARGE})
    told: list[str] = []

    def meanwhile() -> None:
        if s3.count("get_object") == 1:
            with pytest.raises(Unavailable, match="another command is fetching it"):
                get(FakeS3({"key": LARGE}), tmp_path / "a")
            told.append("so")

    s3.before["get_object"] = meanwhile
    get(s3, tmp_path / "a")
    assert told == ["so"]
    assert (tmp_path / "a").read_bytes() == LARGE


def test_a_part_file_that_was_just_renamed_is_let_alone(
    get: Callable[..., Downloaded], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the open and the lock its last holder finished: the file is the target now, whole, and not ours."""
    lock, theirs = fcntl.flock, tmp_path / "theirs"

    def finish_first(descriptor: int, how: int) -> None:
        if not theirs.exists():
            Path(f"/proc/self/fd/{descriptor}").readlink().rename(theirs)
        lock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    get(FakeS3({"key": SMALL}), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == SMALL
    assert theirs.read_bytes() == b""


def test_what_is_no_file_is_not_replaced(get: Callable[..., Downloaded], tmp_path: Path) -> None:
    s3 = FakeS3({"key": SMALL})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "there").write_bytes(b"elsewhere")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InTheWay):
            get(s3, path)
    get(s3, tmp_path / "link")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "there").read_bytes() == b"elsewhere"
    with pytest.raises(NotFound):
        get(s3, tmp_path / "absent" / "a")
