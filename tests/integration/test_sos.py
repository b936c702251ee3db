"""sos as real processes: kills, dead servers, other stores, secrets, large files in little memory."""

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from bench.figures import MemorySampler

from holdfast.core.limits import GIB, MIB
from holdfast.testing.mounts import Mounts, NoNamespaces
from holdfast.testing.old_sos import OldServer
from holdfast.testing.server import free_port
from tests.integration.sos_processes import SOS, Sos, Terminal, environment, request, sha1, sos, status
from tests.unit.gateways.sos import databases

ORIGINAL = os.environ.get("SOS_ORIGINAL", "")
"""The original's own program (github.com/skx/sos, `go build`), for whoever has it."""

# Interpreter, modules, spools and pieces on their way, of the blob server's and the API server's processes together.
# A body of 1 GiB does not fit, nor does a chunk.
MEMORY_MAX_BYTES = 384 * MIB

# What a drive reserves and preallocates leaves room for some objects.
SMALL_DISK_BYTES = 96 * MIB


def get(made: Sos, id: str, extra: str = "") -> bytes:
    return made.fetch(f"{id}{extra}")


def test_a_day_in_the_life(tmp_path: Path) -> None:
    bodies = [Random(number).randbytes(size) for number, size in enumerate((0, 10, 9_000, 300_000, 5_000_000))]
    with sos(tmp_path) as made:
        for body in bodies:
            answer = made.upload(body, {"X-Mime-Type": "text/x", "X-Name": "n"})
            assert answer.decode() == f'{{"id":"{sha1(body)}","size":{len(body)},"status":"OK"}}'
            assert get(made, sha1(body), ".tar.gz") == body
        assert json.loads(made.blobs(1)) == []
        assert status("GET", f"http://127.0.0.1:{made.download_port}/fetch/{sha1(b'nothing')}") == 404
        assert status("GET", f"http://127.0.0.1:{made.download_port}/fetch/..%2fetc") == 404
        assert status("GET", f"http://127.0.0.1:{made.download_port}/upload") == 404

        # The second server dies: nothing is copied to it, and nothing fails.
        made.blob_servers[1].kill()
        done = made.replicate("-v")
        assert done.returncode == 0
        assert f"{made.urls[1]} is left out" in done.stdout
        made.blob_servers[1].start()
        assert made.replicate("--verbose", "--min-copies=2").returncode == 0
        assert json.loads(made.blobs(0)) == json.loads(made.blobs(1)) == sorted(map(sha1, bodies))

        # Now the first: downloads and uploads go on.
        made.blob_servers[0].kill()
        for body in bodies:
            assert get(made, sha1(body)) == body
        made.upload(b"while one was dead")
        assert get(made, sha1(b"while one was dead")) == b"while one was dead"
        assert made.blob_servers[1].interrupt() == 0

        # Neither answers: it may be there, so it is not called missing.
        assert status("GET", f"http://127.0.0.1:{made.download_port}/fetch/{sha1(bodies[1])}") == 503
        assert status("POST", f"http://127.0.0.1:{made.upload_port}/upload", b"lost") == 500

        # What a killed server had answered for is there when it is back.
        for server in made.blob_servers:
            server.kill()
            server.start()
        for body in [*bodies, b"while one was dead"]:
            assert get(made, sha1(body)) == body


@pytest.mark.parametrize("store", ["redis", "postgresql", "memcached"])
def test_other_stores(tmp_path: Path, store: str) -> None:
    home = tmp_path / store
    home.mkdir()
    start: Callable[..., object] = getattr(databases, store)
    with start(home) as url, sos(tmp_path, [url, "data"]) as made:  # type: ignore[attr-defined]
        for size in (0, 100, 3_000_000):
            data = Random(size).randbytes(size)
            made.upload(data, {"X-Mime-Type": "image/png"})
            assert get(made, sha1(data)) == data
        assert len(json.loads(made.blobs(0))) == 3
        assert json.loads(made.blobs(1)) == []
        assert made.replicate().returncode == 0
        assert sorted(json.loads(made.blobs(0))) == json.loads(made.blobs(1))


def test_several_drives_a_token_and_a_secret(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"data/drive{number}").mkdir(parents=True)
    for name in ("token", "secret"):
        (tmp_path / name).write_text(f"the {name}\n")
    flags = {"blob_flags": ["-secret-file", "secret"], "api_flags": ["-secret-file=secret", "--token-file", "token"]}
    with sos(tmp_path, ["data"], **flags) as made:  # type: ignore[arg-type]
        url = f"http://127.0.0.1:{made.upload_port}/upload"
        assert status("POST", url, b"x") == 401
        assert status("POST", url, b"x", {"Authorization": "Bearer wrong"}) == 401
        assert status("POST", url, b"x", {"Authorization": "Bearer the token"}) == 200
        assert get(made, sha1(b"x")) == b"x"
        assert status("GET", f"{made.urls[0]}/blobs") == 401
        bearer = {"Authorization": "Bearer the secret"}
        assert json.loads(request("GET", f"{made.urls[0]}/blobs", headers=bearer)) == [sha1(b"x")]
        assert "left out" in made.replicate("-v").stdout
        assert "left out" not in made.replicate("-v", "-secret-file", str(tmp_path / "secret")).stdout
        assert made.blob_servers[0].said().count("the secret") == 0
    assert all((tmp_path / f"data/drive{number}/holdfast.drive").exists() for number in range(3))


def test_dump_and_configuration(tmp_path: Path) -> None:
    (tmp_path / ".sos.conf").write_text("# mine\n[one]\n-: http://a:1\nread-only: http://b:2/\n[two]\n-: http://c:3\n")

    def said(*command: str) -> str:
        done = subprocess.run([SOS, *command], env=environment(tmp_path), capture_output=True, text=True, check=True)
        return done.stdout

    head = "\t     group - server\n"
    table = "\t       one - http://a:1\n\t       one - http://b:2 (read-only)\n\t       two - http://c:3\n"
    assert said("api-server", "-dump") == head + table
    table = "\t   default - http://x:1\n\t   default - http://y:2\n"
    assert said("api_server", "--dump=true", "-blob-server=http://x:1,http://y:2") == head + table


def large_file(path: Path, size: int) -> str:
    """A file that does not compress; its SHA-1."""
    piece = Random(size).randbytes(MIB)
    whole = hashlib.sha1()
    with path.open("wb") as file:
        for number in range(size // MIB):
            part = number.to_bytes(8, "big") + piece[8:]
            file.write(part)
            whole.update(part)
    return whole.hexdigest()


def fetched_sha1(made: Sos, id: str, home: Path) -> str:
    target = home / "fetched"
    url = f"http://127.0.0.1:{made.download_port}/fetch/{id}"
    subprocess.run(["curl", "-sSf", "-o", target, url], check=True, timeout=600)
    with target.open("rb") as file:
        return hashlib.file_digest(file, "sha1").hexdigest()


def upload_file(made: Sos, path: Path) -> str:
    url = f"http://127.0.0.1:{made.upload_port}/upload"
    command = ["curl", "-sSf", "-X", "POST", "-H", "Expect:", "-T", str(path), url]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return done.stdout


def prove_large(home: Path, size: int) -> None:
    name = large_file(home / "large", size)
    with sos(home, ["data1"]) as made:
        assert made.api_server is not None
        with MemorySampler(made.blob_servers[0].pid) as blob_memory, MemorySampler(made.api_server.pid) as api_memory:
            assert upload_file(made, home / "large") == f'{{"id":"{name}","size":{size},"status":"OK"}}'
            assert fetched_sha1(made, name, home) == name
        peak = blob_memory.peak_bytes + api_memory.peak_bytes
        print(f"\n{size // MIB} MiB: blob server {blob_memory.peak_bytes // MIB}, API server", end=" ")
        print(f"{api_memory.peak_bytes // MIB} MiB at most")
        assert peak <= MEMORY_MAX_BYTES
        assert f"chunklist{name}" in json.loads(made.blobs(0))


@pytest.mark.slow
def test_a_large_file_in_little_memory(tmp_path: Path) -> None:
    prove_large(tmp_path, 136 * MIB)


@pytest.mark.soak
def test_a_gibibyte_in_little_memory(tmp_path: Path) -> None:
    prove_large(tmp_path, GIB)


def test_a_blob_server_is_killed_in_the_middle_of_a_large_upload(tmp_path: Path) -> None:
    name = large_file(tmp_path / "large", 40 * MIB)
    with sos(tmp_path) as made:
        timer = threading.Timer(0.2, made.blob_servers[0].kill)
        timer.start()
        answer = upload_file(made, tmp_path / "large")
        timer.join()
        assert json.loads(answer)["id"] == name
        made.blob_servers[0].start()
        assert fetched_sha1(made, name, tmp_path) == name


@pytest.mark.slow
def test_a_full_blob_server_loses_nothing(tmp_path: Path) -> None:
    """The first server's file system fills up: the second takes the rest, and the first still reads."""
    try:
        with Mounts(tmp_path) as mounts:
            (tmp_path / "small").mkdir()
            mounts.make_disk("small", SMALL_DISK_BYTES)
            mounts.insert("small", tmp_path / "small")
            inside = [*mounts.prefix, SOS, "blob-server", "-port", "{port}", "-store", "{store}", "-workers", "1"]
            with sos(tmp_path, [str(tmp_path / "small"), "data"], commands=[inside]) as made:
                bodies = [Random(number).randbytes(3 * MIB) for number in range(20)]
                for body in bodies:
                    assert json.loads(made.upload(body))["id"] == sha1(body)
                counts = [len(json.loads(made.blobs(number))) for number in (0, 1)]
                print(f"\n{len(bodies)} objects, {counts} on each server")
                assert min(counts) > 0
                assert sum(counts) == len(bodies)
                for body in bodies:
                    assert get(made, sha1(body)) == body
                assert made.replicate().returncode == 1, "not every object could be brought to two servers"
                for body in bodies:
                    assert get(made, sha1(body)) == body
    except NoNamespaces as error:
        pytest.skip(f"not run: a full disk. {error}")


async def test_a_wrong_copy_that_went_out_breaks_the_connection(tmp_path: Path) -> None:
    """Through the real server, with and without an announced length: no client takes it for the file."""
    data = Random(1).randbytes(12 * MIB)
    name = sha1(data)
    async with OldServer().running() as old:
        with sos(tmp_path, [], api_flags=["-blob-server", old.url]) as made:
            url = f"http://127.0.0.1:{made.download_port}/fetch/{name}"
            for kept, announced in ((data[:-1] + b"\0", False), (data[:-1], False), (data[:-1] + b"\0", True)):
                old.blobs[name] = kept, {}
                old.announces = announced
                done = await asyncio.to_thread(subprocess.run, ["curl", "-sf", url], capture_output=True, check=False)
                assert done.returncode != 0
                assert data.startswith(done.stdout)
            old.blobs[name] = data, {}
            assert await asyncio.to_thread(made.fetch, name) == data


@pytest.mark.skipif(not ORIGINAL, reason="SOS_ORIGINAL does not name the original's program")
def test_beside_the_original_program(tmp_path: Path) -> None:
    """Original blob servers among ours, the original API server and its replication over ours."""
    old = [ORIGINAL, "blob-server", "-port", "{port}", "-store", "{store}"]
    with sos(tmp_path, ["old", "new"], commands=[old]) as made:
        small = [Random(number).randbytes(100 * number) for number in range(8)]
        for body in small:
            made.upload(body, {"X-Mime-Type": "text/x"})
            assert get(made, sha1(body)) == body
        name = large_file(tmp_path / "large", 130 * MIB)
        upload_file(made, tmp_path / "large")
        assert fetched_sha1(made, name, tmp_path) == name
        assert made.replicate("-v").returncode == 0
        assert sorted(json.loads(made.blobs(0))) == json.loads(made.blobs(1))
        shutil.rmtree(tmp_path / "old")
        (tmp_path / "old").mkdir()
        made.blob_servers[0].kill()
        made.blob_servers[0].start()
        theirs = [ORIGINAL, "replicate", "-blob-server", ",".join(made.urls)]
        subprocess.run(theirs, check=True, capture_output=True, timeout=120)
        assert sorted(json.loads(made.blobs(0))) == json.loads(made.blobs(1))
        for number in (0, 1):
            for body in small:
                assert request("GET", f"{made.urls[number]}/blob/{sha1(body)}") == body
        their_api_server(made, tmp_path, name)


def their_api_server(made: Sos, home: Path, large: str) -> None:
    """The original API server in front of the same blob servers."""
    upload_port, download_port = free_port(), free_port()
    command = [
        ORIGINAL, "api-server", "-api-host", "127.0.0.1", "-upload-port", str(upload_port),
        "-download-port", str(download_port), "-blob-server", ",".join(reversed(made.urls)),
    ]  # fmt: skip
    with Terminal(command, home, home / "theirs.log", environment(home), [upload_port, download_port]):
        for body in (b"theirs", Random(9).randbytes(3 * MIB)):
            answer = json.loads(request("POST", f"http://127.0.0.1:{upload_port}/upload", body, {"X-Name": "n"}))
            assert (answer["id"], answer["size"], answer["status"]) == (sha1(body), len(body), "OK")
            assert request("GET", f"http://127.0.0.1:{download_port}/fetch/{sha1(body)}") == body
            assert get(made, sha1(body)) == body
        assert status("GET", f"http://127.0.0.1:{download_port}/fetch/{large}") == 404
