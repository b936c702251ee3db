"""Air on real servers: in the workers of `holdfast serve` beside S3, and alone under another ASGI server."""

import json
import os
import socket
import subprocess
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from bench.figures import MemorySampler

from holdfast.core.crc import crc64nvme
from holdfast.core.limits import MIB
from holdfast.testing.s3_client import S3Client, quote_key
from holdfast.testing.server import Server, free_port
from tests.integration.app_server import app_server
from tests.integration.conftest import StartServer

BOUNDARY = "a-boundary-of-no-file"
START_MAX_SECONDS = 120.0


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def form(*data: bytes) -> list[bytes]:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\nContent-Type: a/b\r\n\r\n'
    return [head.encode(), *data, f"\r\n--{BOUNDARY}--\r\n".encode()]


@dataclass(frozen=True)
class Air:
    """A client of one port."""

    port: int
    token: str | None = None

    def call(self, method: str, path: str, body: list[bytes] | None = None, **headers: str) -> Answer:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.token is not None:
            given["authorization"] = f"Bearer {self.token}"
        if body is not None:
            given["content-length"] = str(sum(map(len, body)))
            given.setdefault("content-type", f"multipart/form-data; boundary={BOUNDARY}")
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body=iter(body) if body is not None else None, headers=given)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def put(self, path: str, *data: bytes) -> Answer:
        return self.call("POST", f"/put/{path}", form(*data))

    def get(self, path: str, **headers: str) -> Answer:
        return self.call("GET", f"/get/{path}", None, **headers)

    def wait(self, process: "subprocess.Popen[bytes] | None" = None) -> None:
        """Until it serves."""
        deadline = time.monotonic() + START_MAX_SECONDS
        while time.monotonic() < deadline:
            assert process is None or process.poll() is None
            try:
                if self.call("GET", "/").status == 200:
                    return
            except (OSError, HTTPException):
                time.sleep(0.05)
        raise TimeoutError("air does not serve")


def test_air_beside_s3(start_server: StartServer) -> None:
    port = free_port()
    server = start_server(3, options=("--air", str(port)))
    with server.client() as s3:
        air = Air(port)
        air.wait()
        first = air.put("shared/a/name with spaces?.bin".replace(" ", "%20").replace("?", "%3F"), b"by air")
        assert (first.status, list(first.json)) == (200, ["message", "time_taken", "speed"])
        key = "a/name with spaces?.bin"
        assert s3.get("shared", key).body == b"by air"
        check_crc(s3, "shared", key, b"by air")
        data = os.urandom(3 * MIB)
        assert s3.put("shared", key, data).status == 200
        path = "shared/a/name%20with%20spaces%3F.bin"
        newest = air.get(path)
        assert (newest.status, newest.body == data, newest.headers["version"]) == (200, True, "2")
        assert air.get(f"{path}?version=1").body == b"by air"
        part = air.get(path, range=f"bytes={MIB - 5}-{2 * MIB + 6}")
        assert (part.status, part.body == data[MIB - 5 : 2 * MIB + 7]) == (206, True)
        assert air.call("DELETE", f"/delete/{path}").status == 200
        assert (air.get(path).status, s3.get("shared", key).status) == (404, 404)
        listed = air.call("GET", "/list/shared").json["data"]
        assert [(e["filename"], e["version"], e["size"]) for e in listed] == [(key, "1", 6), (key, "2", 3 * MIB)]
        assert float(newest.headers["time_taken"]) > 0
        # Many writers of one name, in every worker: each gets its own version.
        made: list[tuple[int, int]] = []
        threads = [Thread(target=put_twice, args=(air, "shared/hot", made)) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(made) == [(200, number) for number in range(1, 49)]
        # Every worker listens: when one is killed, the others and the next serve on.
        victim = workers(server)[-1]
        server.kill_process(victim)
        # Until it is gone, it may take a connection with it.
        while victim in workers(server):
            time.sleep(0.01)
        air.wait()
        assert air.get(f"{path}?version=1").body == b"by air"


def check_crc(s3: S3Client, bucket: str, key: str, data: bytes) -> None:
    """S3 tells the checksum of what air put, wherever it tells one."""
    expected = b64encode(crc64nvme(data).to_bytes(8)).decode()
    path = f"/{bucket}/{quote_key(key)}"
    told = s3.request("HEAD", path, headers={"x-amz-checksum-mode": "ENABLED"}).headers
    assert (told["x-amz-checksum-crc64nvme"], told["x-amz-checksum-type"]) == (expected, "FULL_OBJECT")
    attributes = s3.request("GET", path, [("attributes", "")], {"x-amz-object-attributes": "Checksum"}).body.decode()
    assert f"<ChecksumCRC64NVME>{expected}</ChecksumCRC64NVME>" in attributes


def put_twice(air: Air, path: str, made: list[tuple[int, int]]) -> None:
    for _ in range(2):
        answer = air.put(path, b"data")
        made.append((answer.status, int(answer.headers.get("version", 0))))


def workers(server: Server) -> list[int]:
    """granian's main process has none but its workers as children."""
    processes = server.processes()
    parents = [process.parent for process in processes]
    return [p.pid for p in processes if p.parent != server.pid and p.pid != server.pid and p.pid not in parents]


def test_large_files_stream(start_server: StartServer) -> None:
    """Memory does not grow with what is put and got; what breaks off leaves nothing."""
    port = free_port()
    piece, pieces, clients = os.urandom(MIB), 48, 4
    expected = sha256(piece * pieces).digest()
    server = start_server(3, options=("--air", str(port)), workers=1)
    air = Air(port)
    air.wait()
    assert air.put("large/warm", piece).status == 200
    wrong: list[str] = []

    def both(number: int) -> None:
        answer = air.put(f"large/{number}", *([piece] * pieces))
        if answer.status != 200 or sha256(air.get(f"large/{number}").body).digest() != expected:
            wrong.append(f"{number}: {answer.status} {answer.body[:100]!r}")

    with MemorySampler(server.pid) as memory:
        threads = [Thread(target=both, args=(number,)) for number in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    # 192 MiB went each way; three processes at rest take about 170.
    assert memory.peak_bytes < 400 * MIB
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.putrequest("POST", "/put/large/cut")
        connection.putheader("content-type", f"multipart/form-data; boundary={BOUNDARY}")
        connection.putheader("content-length", str(pieces * MIB))
        connection.endheaders()
        for data in form(*([piece] * 3))[:-1]:
            connection.send(data)
    time.sleep(0.5)
    assert air.get("large/cut").status == 404


def test_a_token_for_other_machines(start_server: StartServer, tmp_path: Path) -> None:
    port = free_port()
    token = tmp_path / "token"
    token.write_text("of-no-use-anywhere-else\n")
    options = ("--air", f"0.0.0.0:{port}", "--air-token-file", str(token))
    start_server(1, options=options, workers=1)
    air = Air(port, "of-no-use-anywhere-else")
    air.wait()
    assert air.put("mine/k", b"data").status == 200
    assert air.get("mine/k", host="air.example").body == b"data"
    assert Air(port).get("mine/k").status == 401
    assert Air(port, "of-no-use-anywhere").get("mine/k").status == 401


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--air", "0.0.0.0:{free}"), "without a token"),
        (("--air", "{taken}"), "cannot listen on 127.0.0.1"),
        (("--air", "{free}", "--air-token-file", "/nowhere"), "/nowhere: No such file"),
    ],
)
def test_what_is_refused_at_the_start(tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    server = Server([tmp_path / "drive"], tmp_path / "log")
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        command = [*server.command(), *(option.format(free=free_port(), taken=taken) for option in options)]
        ended = subprocess.run(command, env=server.environment(), capture_output=True, timeout=60, check=False)
    server.__exit__(None, None, None)
    assert (ended.returncode, said in ended.stderr.decode()) == (1, True), ended.stderr
    assert not (tmp_path / "drive").exists()


@contextmanager
def hypercorn(application: str, bind: int, server: Server, log: Path, **environment: str) -> Iterator[None]:
    """An application of ours under hypercorn, over the store of a server that is not running."""
    command = ["hypercorn", "--workers", "2", "--bind", f"127.0.0.1:{bind}", application]
    with app_server(command, {**server.environment(), **environment}, log):
        yield


def test_the_settings_of_the_original_and_hypercorn(tmp_path: Path) -> None:
    """NODEPATH and its like make the store; hypercorn serves air alone, and air beside S3, from it."""
    theirs = {
        "DATA": "2",
        "PARITY": "1",
        "NUMNODES": "4",
        "METACOPIES": "3",
        "NODEPATH": str(tmp_path / "nodes"),
        "MATRIXTYPE": "cauchy",
    }
    port, other = free_port(), free_port()
    air = Air(port)
    data = os.urandom(2 * MIB)
    with Server([], tmp_path / "made.log", environment={**theirs, "HOLDFAST_AIR": str(port)}) as server:
        air.wait()
        assert air.put("made/by/serve", data).status == 200
        assert "4 drives, 2+1" in server.log_tail()
        assert sorted(path.name for path in (tmp_path / "nodes").iterdir()) == ["1", "2", "3", "4"]
        server.stop()
        with hypercorn("holdfast.cli.air:application", port, server, tmp_path / "alone.log", HOLDFAST_AIR=str(other)):
            air.wait()
            assert air.get("made/by/serve").body == data
            assert air.put("made/by/hypercorn", data).status == 200
            assert air.get("made/by/hypercorn", range="bytes=-7").body == data[-7:]
            assert air.call("POST", "/put/made/by/nobody", [b"x"], content_type="text/plain").status == 415
        with hypercorn("holdfast.cli.app:application", other, server, tmp_path / "beside.log"):
            air.wait()
            assert air.get("made/by/hypercorn").body == data
            assert Air(other).call("GET", "/health/ready").status == 200
