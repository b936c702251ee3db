"""The commands of users against a real server: what they move, what they refuse, what a kill leaves behind.

Most run in this process, which is what a day of them costs least; those that are killed, or read and write streams,
are processes of their own.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import botocore.loaders
import botocore.session
import pytest

from holdfast.cli.client.unfinished import Begun, note_of
from holdfast.core.limits import MIB
from holdfast.testing.server import ACCESS_KEY, SECRET_KEY, Server
from tests.integration.conftest import make_directories
from tests.integration.user import Client

# Long enough that it can be killed in the middle, in parts and pieces of 8 MiB.
LARGE_BYTES = 40 * MIB + 12345

# When a transfer that should be on its way is taken for stuck.
UNDER_WAY_MAX_SECONDS = 120.0

# Of transfers that were over before they could be cut off, which chance may do to one.
TRIES_MAX_COUNT = 10


@pytest.fixture(scope="module", autouse=True)
def shared_models() -> Iterator[None]:
    """botocore reads the description of S3 for every session anew, which a real command does once."""
    loader = botocore.loaders.create_loader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", lambda *_: loader)
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("store")
    with Server(make_directories(home, 2), home / "log", options=("--sync", "relaxed")) as server:
        yield Client(server, tmp_path_factory.mktemp("home"))


@pytest.fixture
def bucket(client: Client, request: pytest.FixtureRequest) -> str:
    name = request.node.name.replace("_", "-").removeprefix("test-")[:63].rstrip("-")
    client.run("bucket", "create", name).well()
    return str(name)


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + UNDER_WAY_MAX_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, "it never got under way"
        time.sleep(0.002)


def cut_off(
    start: Callable[[], "subprocess.Popen[bytes]"], is_under_way: Callable[[], bool], undo: Callable[[], bool]
) -> None:
    """Kill a transfer in the middle. `undo` puts right what one that was quicker has done, and says whether one was."""
    for _ in range(TRIES_MAX_COUNT):
        process = start()
        wait_until(lambda: process.poll() is not None or is_under_way())  # noqa: B023  the loop waits
        process.kill()
        process.wait()
        if not undo():
            return
    pytest.fail("it was always over before it could be killed")


def test_an_ordinary_day(client: Client, bucket: str, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_bytes(b"0123456789")
    (tmp_path / "empty").write_bytes(b"")
    target = f"s3://{bucket}/day/"
    client.run("put", tmp_path / "one.txt", tmp_path / "empty", target, "--metadata", "owner=me").well()
    assert client.held(bucket) == {"day/one.txt": b"0123456789", "day/empty": b""}
    assert [record["key"] for record in client.run("ls", "--json", target).well().records] == [
        "day/empty",
        "day/one.txt",
    ]
    assert "day/" in client.run("ls", bucket).well().out
    assert f"s3://{bucket}" in client.run("ls").well().out
    [told] = client.run("stat", "--json", target + "one.txt").well().records
    assert (told["bytes"], told["content_type"], told["metadata"]) == (10, "text/plain", {"owner": "me"})
    assert told["ChecksumCRC64NVME"]
    client.run("cp", target + "one.txt", target + "two.txt").well()
    client.run("mv", target + "two.txt", f"s3://{bucket}/moved.txt").well()
    assert set(client.held(bucket)) == {"day/one.txt", "day/empty", "moved.txt"}
    client.run("mv", f"s3://{bucket}/moved.txt", tmp_path / "back.txt").well()
    client.run("mv", tmp_path / "back.txt", target).well()
    assert not (tmp_path / "back.txt").exists()
    assert client.held(bucket)["day/back.txt"] == b"0123456789"
    [usage] = client.run("du", "--json", bucket).well().records
    assert (usage["bytes"], usage["objects"]) == (20, 3)
    assert "└── one.txt  (10 B)" in client.run("tree", bucket).well().out
    link = client.run("share", target + "one.txt").well().out.strip()
    with urllib.request.urlopen(link) as answer:
        assert answer.read() == b"0123456789"
    kept = client.run("get", "--no-clobber", target + "one.txt", tmp_path / "empty")
    assert (kept.status, (tmp_path / "empty").read_bytes()) == (1, b"")
    assert client.run("put", "-n", tmp_path / "empty", target + "one.txt").status == 1
    client.run("rm", target + "one.txt").well()
    assert client.run("rm", target + "one.txt").status == 1
    client.run("rm", "-r", "--yes", target).well()
    client.run("bucket", "delete", bucket).well()
    assert f"s3://{bucket}\n" not in client.run("ls").well().out


def test_versions(client: Client, bucket: str, tmp_path: Path) -> None:
    name = f"s3://{bucket}/a"
    assert "keeps no versions" in client.run("bucket", "versioning", bucket).well().out
    client.run("bucket", "versioning", bucket, "on").well()
    for body in (b"first", b"second"):
        (tmp_path / "a").write_bytes(body)
        client.run("put", tmp_path / "a", name).well()
    client.run("rm", name).well()
    assert client.run("stat", name).status == 1
    listed = client.run("ls", "--versions", "--json", bucket).well().records
    assert [(one["latest"], one["delete_marker"]) for one in listed] == [(True, True), (False, False), (False, False)]
    oldest = listed[-1]["version_id"]
    client.run("get", name, tmp_path / "old", "--version-id", oldest).well()
    assert (tmp_path / "old").read_bytes() == b"first"
    client.run("rm", name, "--version-id", listed[0]["version_id"]).well()
    client.run("get", name, tmp_path / "new").well()
    assert (tmp_path / "new").read_bytes() == b"second"
    client.run("rm", "--versions", name).well()
    assert client.run("ls", "--versions", "--json", bucket).well().records == []
    client.run("put", tmp_path / "a", name).well()
    assert "--force" in client.run("bucket", "delete", bucket).errors
    assert "say --yes" in client.run("bucket", "delete", "--force", bucket).errors
    client.run("bucket", "delete", "--force", "--yes", bucket).well()


def test_odd_keys_stay_inside(client: Client, bucket: str, tmp_path: Path) -> None:
    good = {
        "a b/ünï 日本.txt": b"1",
        "new\nline": b"2",
        "-rf": b"3",
        "..dots": b"4",
        "deep/" * 20 + "x": b"5",
        "%2e%2e": b"6",
    }
    evil = {
        "../escaped": b"x", "a/../../escaped": b"x", "/absolute": b"x", "double//slash": b"x", "slash/": b"not empty",
        "link/through": b"x", ".": b"x", "long" * 64: b"x",
    }  # fmt: skip
    client.put(bucket, {**good, **evil, "marker/": b"", "both": b"file", "both/inside": b"folder"})
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "outside").mkdir()
    (target / "link").symlink_to(tmp_path / "outside")
    said = client.run("get", "--recursive", f"s3://{bucket}", target)
    assert said.status == 1
    found = files(target)
    assert found.keys() - {"both", "both/inside"} == good.keys()
    assert len(found.keys() & {"both", "both/inside"}) == 1
    assert all(found[key] == body for key, body in good.items())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outside", "target"]
    assert list((tmp_path / "outside").iterdir()) == []
    assert not Path("/absolute").exists()
    assert said.errors.count("Failed:") == len(evil) + 1
    assert "\x1b" not in said.out
    again = client.run("mirror", f"s3://{bucket}", target, "--delete")
    assert again.status == 1
    assert files(target) == found
    client.run("get", f"s3://{bucket}/../escaped", tmp_path / "named").well()
    assert (tmp_path / "named").read_bytes() == b"x"
    assert client.run("get", f"s3://{bucket}/a/../..", tmp_path).status == 1
    client.run("rm", "--recursive", "--yes", bucket).well()
    assert client.held(bucket) == {}


def test_a_mirror_of_two_thousand_files(client: Client, bucket: str, tmp_path: Path) -> None:
    source, chance = tmp_path / "source", Random(1)
    for number in range(2000):
        path = source / f"{number // 250}" / f"file {number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(number % 300))
        os.utime(path, (1_700_000_000, 1_700_000_000))
    (source / "link").symlink_to(source / "0")
    *_, summary = client.run("mirror", source, f"s3://{bucket}", "--json").well().records
    assert (summary["objects"], summary["failed"]) == (2000, 0)
    *_, summary = client.run("mirror", source, f"s3://{bucket}", "--json").well().records
    assert (summary["objects"], summary["same"]) == (0, 2000)
    (source / "0" / "file 1").write_bytes(b"!")
    (source / "0" / "file 2").unlink()
    (source / "7" / "new").write_bytes(b"new")
    dry = client.run("mirror", source, f"s3://{bucket}", "--delete", "--dry-run").well().out
    assert sorted(line.split()[1] for line in dry.splitlines()) == ["copy", "copy", "delete"]
    *_, summary = client.run("mirror", source, f"s3://{bucket}", "--delete", "--json").well().records
    assert (summary["objects"], summary["deleted"], summary["same"]) == (2, 1, 1998)
    here = tmp_path / "here"
    client.run("mirror", f"s3://{bucket}/0", here).well()
    assert files(here) == files(source / "0")
    stamps = {path: path.stat().st_mtime_ns for path in here.iterdir()}
    (here / "extra" / "deep").mkdir(parents=True)
    (here / "extra" / "deep" / "file").write_bytes(b"")
    (here / "file 3").write_bytes(b"xyz")
    *_, summary = client.run("mirror", f"s3://{bucket}/0", here, "--delete", "--json").well().records
    assert (summary["objects"], summary["deleted"]) == (1, 1)
    assert files(here) == files(source / "0")
    assert not (here / "extra").exists()
    assert {path: path.stat().st_mtime_ns for path in here.iterdir()} == stamps


def test_a_mirror_deletes_only_what_it_may(client: Client, bucket: str, tmp_path: Path) -> None:
    target, empty = f"s3://{bucket}", tmp_path / "empty"
    client.put(bucket, {"a.txt": b"a", "b.log": b"b", "c/d.txt": b"d"})
    empty.mkdir()
    said = client.run("mirror", "--delete", empty, target)
    assert (said.status, len(client.held(bucket))) == (1, 3)
    assert "say --yes" in said.errors
    assert client.run("mirror", "--delete", tmp_path / "absent", target, "--yes").status == 1
    assert len(client.held(bucket)) == 3
    (empty / "new.txt").write_bytes(b"new")
    client.run("mirror", "--delete", "--exclude", "*.log", empty, target).well()
    assert client.held(bucket) == {"new.txt": b"new", "b.log": b"b"}
    # What was an object is a folder now, and the other way round.
    here = tmp_path / "here"
    client.put(bucket, {"x/y": b"1", "z": b"2"})
    client.run("mirror", target, here).well()
    client.run("rm", "--yes", "-r", bucket).well()
    client.put(bucket, {"x": b"3", "z/y": b"4"})
    client.run("mirror", "--delete", target, here).well()
    assert files(here) == {"x": b"3", "z/y": b"4"}
    other = f"s3://{bucket}-2"
    client.run("bucket", "create", other).well()
    client.run("mirror", target, other).well()
    assert client.held(f"{bucket}-2") == {"x": b"3", "z/y": b"4"}
    *_, summary = client.run("mirror", target, other, "--json").well().records
    assert (summary["objects"], summary["same"]) == (0, 2)


def test_a_killed_upload_goes_on(client: Client, bucket: str, tmp_path: Path) -> None:
    large = tmp_path / "large"
    body = Random(2).randbytes(LARGE_BYTES)
    large.write_bytes(body)

    def parts() -> int:
        [*uploads] = client.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", ())
        ids = [(upload["Key"], upload["UploadId"]) for upload in uploads]
        return sum(
            len(client.s3.list_parts(Bucket=bucket, Key=key, UploadId=upload).get("Parts", ())) for key, upload in ids
        )

    def undo() -> bool:
        was_there = client.held(bucket) != {}
        client.s3.delete_object(Bucket=bucket, Key="large")
        return was_there

    def kill() -> None:
        cut_off(lambda: client.start("put", large, f"s3://{bucket}/large", "--jobs", 1), lambda: parts() >= 2, undo)

    kill()
    assert client.held(bucket) == {}
    [done, summary] = client.run("put", large, f"s3://{bucket}/large", "--json").well().records
    assert 16 * MIB <= done["resumed_bytes"] < LARGE_BYTES
    assert summary["bytes"] == LARGE_BYTES
    assert client.held(bucket) == {"large": body}
    assert parts() == 0
    # A file that is another by now: nothing of the old one is used, and its upload is not left lying.
    client.run("rm", f"s3://{bucket}/large").well()
    kill()
    body = b"!" + body[1:]
    large.write_bytes(body)
    [done, _] = client.run("put", large, f"s3://{bucket}/large", "--json").well().records
    assert done["resumed_bytes"] == 0
    assert client.held(bucket) == {"large": body}
    assert parts() == 0
    assert list((client.home / "state" / "holdfast" / "uploads").iterdir()) == []


def test_unfinished_uploads_are_listed_and_aborted(client: Client, bucket: str) -> None:
    def begin(key: str, *parts: bytes) -> str:
        upload = str(client.s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])
        for number, body in enumerate(parts, 1):
            client.s3.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
        return upload

    ids = {key: begin(key, *parts) for key, parts in {"a/1": (b"abc",), "a/2": (), "ab": (b"x", b"y")}.items()}
    second = begin("ab")
    notes = client.home / "state" / "holdfast" / "uploads"
    with note_of(notes, "of this test") as note:
        note.write(Begun(ids["ab"], 9, 1, 1, 1, {}, "/srv/film"))
        listed = client.run("uploads", "list", bucket, "--json").well().records
        assert {(one["key"], one["upload_id"]): one["bytes"] for one in listed} == {
            ("a/1", ids["a/1"]): 3, ("a/2", ids["a/2"]): 0, ("ab", ids["ab"]): 2, ("ab", second): 0,
        }  # fmt: skip
        assert [one["key"] for one in listed] == ["a/1", "a/2", "ab", "ab"]
        assert "(of 9 B from /srv/film: being sent now)" in client.run("uploads", "list", bucket).well().out
        assert len(client.run("uploads", "list", f"s3://{bucket}/ab", "--json").well().records) == 2
        said = client.run("uploads", "abort", f"s3://{bucket}/ab").well()
        assert "Left out /srv/film, which is being sent now" in said.errors
    assert "the same command goes on" in client.run("uploads", "list", bucket).well().out
    assert client.run("uploads", "abort", f"s3://{bucket}/ab", "--upload-id", second).status == 1
    assert client.run("uploads", "abort", f"s3://{bucket}/ab", "--older-than", "1h").status == 1
    assert client.run("uploads", "abort", f"s3://{bucket}/a").status == 1
    client.run("uploads", "abort", f"s3://{bucket}/ab").well()
    assert list(notes.iterdir()) == []
    would = client.run("uploads", "abort", "-r", f"s3://{bucket}/a", "--dry-run").well().out
    assert [line.split(",")[0] for line in would.splitlines()] == [
        f"Would abort s3://{bucket}/a/1", f"Would abort s3://{bucket}/a/2",
    ]  # fmt: skip
    assert "say --yes" in client.run("uploads", "abort", "-r", bucket).errors
    assert client.run("uploads", "abort", "-r", "--yes", bucket).well().out.endswith("2 uploads aborted\n")
    assert client.run("uploads", "list", bucket, "--json").well().records == []


def test_a_killed_download_goes_on(client: Client, bucket: str, tmp_path: Path) -> None:
    body = Random(3).randbytes(LARGE_BYTES)
    client.s3.put_object(Bucket=bucket, Key="large", Body=body, ChecksumAlgorithm="CRC64NVME")
    target = tmp_path / "large"

    def part() -> Path | None:
        return next(iter(tmp_path.glob(".large.*.holdfast-part")), None)

    def pieces() -> int:
        path = part()
        if path is None:
            return 0
        with path.open("rb") as file:
            file.seek(LARGE_BYTES)
            return sum(file.read())

    def kill(before: bytes | None) -> None:
        """In the middle of a download over what was there before."""

        def undo() -> bool:
            if 2 <= pieces() < 6:
                return False
            for path in tmp_path.iterdir():
                path.unlink()
            if before is not None:
                target.write_bytes(before)
            return True

        cut_off(lambda: client.start("get", f"s3://{bucket}/large", target, "--jobs", 1), lambda: pieces() >= 2, undo)

    kill(None)
    assert not target.exists()
    [done, _] = client.run("get", f"s3://{bucket}/large", target, "--json").well().records
    assert 16 * MIB <= done["resumed_bytes"] < LARGE_BYTES
    assert files(tmp_path) == {"large": body}
    # A piece that rots meanwhile is found by the check of the whole, and the file is fetched anew.
    target.unlink()
    kill(None)
    path = part()
    assert path is not None
    with path.open("r+b") as file:
        file.write(bytes([body[0] ^ 1]))
    [done, _] = client.run("get", f"s3://{bucket}/large", target, "--json").well().records
    assert done["resumed_bytes"] == 0
    assert files(tmp_path) == {"large": body}
    # An object that was overwritten meanwhile: nothing of the old one is used, and its part file goes.
    target.write_bytes(b"what was there before")
    kill(b"what was there before")
    assert target.read_bytes() == b"what was there before"
    body = Random(4).randbytes(LARGE_BYTES)
    client.s3.put_object(Bucket=bucket, Key="large", Body=body)
    [done, _] = client.run("get", f"s3://{bucket}/large", target, "--json").well().records
    assert done["resumed_bytes"] == 0
    assert files(tmp_path) == {"large": body}


def test_streams(client: Client, bucket: str) -> None:
    body = Random(5).randbytes(20 * MIB + 1)
    process = client.start("put", "-", f"s3://{bucket}/stream", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    process.communicate(body)
    assert process.returncode == 0
    out = client.start("cat", f"s3://{bucket}/stream", stdout=subprocess.PIPE).communicate()[0]
    assert hashlib.sha256(out).digest() == hashlib.sha256(body).digest()
    out = client.start("get", f"s3://{bucket}/stream", "-", stdout=subprocess.PIPE).communicate()[0]
    assert out == body
    out = client.start("cat", "--tail", 5, f"s3://{bucket}/stream", stdout=subprocess.PIPE).communicate()[0]
    assert out == body[-5:]
    reader = client.start("cat", f"s3://{bucket}/stream", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stderr is not None
    assert reader.stdout.read(10) == body[:10]
    reader.stdout.close()
    assert reader.wait() == 1
    assert reader.stderr.read() == b""
    reader.stderr.close()


def test_ctrl_c_says_that_it_can_go_on(client: Client, bucket: str, tmp_path: Path) -> None:
    # Under way for seconds, so that the signal finds it there.
    with (tmp_path / "large").open("wb") as file:
        file.truncate(256 * MIB)
    status, errors = 0, b""
    for _ in range(TRIES_MAX_COUNT):
        process = client.start("put", tmp_path / "large", f"s3://{bucket}/", "-j", 1, stderr=subprocess.PIPE)
        wait_until(
            lambda: (
                process.poll() is not None  # noqa: B023  the loop waits
                or bool(client.s3.list_multipart_uploads(Bucket=bucket).get("Uploads"))
            )
        )
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=UNDER_WAY_MAX_SECONDS)
        if status := process.returncode:
            break
    assert status == 130
    assert b"the same command goes on" in errors
    assert b"Traceback" not in errors
    client.run("put", tmp_path / "large", f"s3://{bucket}/").well()


def test_errors_name_the_cause_and_the_next_step(client: Client, bucket: str, tmp_path: Path) -> None:
    client.put(bucket, {"report-2026.pdf": b"x", "folder/a": b"x"})
    near = bucket[:-1]
    port = client.server.address[1]
    for arguments, changes, words in (
        (("ls", near), {}, f"did you mean {bucket}?"),
        (("cat", f"{bucket}/report-2025.pdf"), {}, f"did you mean s3://{bucket}/report-2026.pdf?"),
        (("get", f"{bucket}/folder", tmp_path), {}, "is a folder: --recursive"),
        (("get", "-r", f"s3://{bucket}/nothing/", tmp_path), {}, "there is nothing in"),
        (("ls",), {"AWS_SECRET_ACCESS_KEY": "wrong"}, "not this secret key"),
        (("stat", bucket), {"AWS_SECRET_ACCESS_KEY": "wrong"}, "not this secret key"),
        (("ls",), {"AWS_ACCESS_KEY_ID": "AKIAWRONG"}, "does not know the access key"),
        (("ls",), {"AWS_ENDPOINT_URL": f"https://127.0.0.1:{port}"}, "does not speak TLS there"),
        (("ls", "--region", "eu-west-9"), {}, "--region"),
        (("put", tmp_path / "absent", bucket), {}, "no such file"),
        (("put", tmp_path, bucket), {}, "--recursive"),
        (("get", f"s3://{bucket}/report-2026.pdf", "/proc/version"), {}, "/proc/version"),
        (("get", f"s3://{bucket}/report-2026.pdf", "/dev/null"), {}, "redirect"),
        (("bucket", "create", bucket.upper()), {}, "lower-case"),
    ):
        said = client.run(*arguments, **changes)
        assert said.status in (1, 2), arguments
        assert words in said.errors, (arguments, said.errors)
        assert said.errors.count("\n") <= 4, said.errors
        assert SECRET_KEY not in said.errors
    assert Path("/dev/null").is_char_device()


def test_profiles_are_understood(client: Client, bucket: str) -> None:
    pair = {"Version": 1, "AccessKeyId": ACCESS_KEY, "SecretAccessKey": SECRET_KEY}
    (client.home / "keys.json").write_text(json.dumps(pair))
    (client.home / "config").write_text(
        f"[profile here]\nendpoint_url = {client.server.endpoint}\nregion = us-east-1\n"
        f"credential_process = cat {client.home / 'keys.json'}\n"
    )
    nothing = {"AWS_ENDPOINT_URL": "", "AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    assert bucket in client.run("ls", "--profile", "here", **nothing).well().out
    assert bucket in client.run("ls", **nothing, HOLDFAST_PROFILE="here").well().out
    (client.home / "config").write_text("[default]\nrequest_checksum_calculation = when_required\n")
    (client.home / "plain").write_bytes(b"with Content-MD5")
    client.run("put", client.home / "plain", f"s3://{bucket}/").well()
    assert client.held(bucket) == {"plain": b"with Content-MD5"}
    (client.home / "config").unlink()
