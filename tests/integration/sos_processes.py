"""Blob servers and API servers as processes of a test, on free ports, in directories of the test's own."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from holdfast.testing.server import free_port, session_processes
from holdfast.testing.shared_memory import in_memory

SOS = str(Path(sys.executable).with_name("sos"))

START_MAX_SECONDS = 120.0
STOP_MAX_SECONDS = 60.0


class Terminal:
    """A command that runs until it is stopped, with all that it starts."""

    def __init__(
        self, command: Sequence[str], directory: Path, log: Path, environment: Mapping[str, str], ports: Sequence[int]
    ) -> None:
        self.command = list(command)
        self.directory = directory
        self.log = log
        self.environment = dict(environment)
        self.ports = ports
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        if error is not None:
            sys.stderr.write(f"--- {' '.join(self.command)}\n{self.said()[-3000:]}\n")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_MAX_SECONDS
        while not all(map(listens, self.ports)):
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def interrupt(self) -> int:
        """Ctrl-C; the exit status."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGINT)
        return self._process.wait(STOP_MAX_SECONDS)

    def kill(self) -> None:
        """kill -9 of all of it."""
        if self._process is None:
            return
        while processes := session_processes(self._process.pid):
            for process in processes:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            self._process.poll()
            time.sleep(0.005)
        self._process.wait()
        self._process = None

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@dataclass
class Sos:
    """Some blob servers, and an API server in front of them."""

    home: Path
    blob_servers: list[Terminal] = field(default_factory=list)
    api_server: Terminal | None = None
    upload_port: int = 0
    download_port: int = 0

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{server.ports[0]}" for server in self.blob_servers]

    def replicate(self, *flags: str, timeout_seconds: float = 120.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SOS, "replicate", "-blob-server", ",".join(self.urls), *flags],
            env=environment(self.home),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_seconds,
        )

    def upload(self, data: bytes, headers: Mapping[str, str] | None = None) -> bytes:
        return request("POST", f"http://127.0.0.1:{self.upload_port}/upload", data, headers)

    def fetch(self, id: str) -> bytes:
        return request("GET", f"http://127.0.0.1:{self.download_port}/fetch/{id}")

    def blobs(self, number: int) -> bytes:
        return request("GET", f"{self.urls[number]}/blobs")


@contextmanager
def sos(
    home: Path,
    stores: Sequence[str] = ("data1", "data2"),
    *,
    workers: int = 1,
    blob_flags: Sequence[str] = (),
    api_flags: Sequence[str] = (),
    commands: Sequence[Sequence[str]] = (),
) -> Iterator[Sos]:
    """Servers over these stores. `commands` takes the place of some of the blob servers, with `{port}` in it."""
    made = Sos(home)
    for number, store in enumerate(stores):
        port = free_port()
        command = [SOS, "blob-server", "-port", str(port), "-store", store, "-workers", str(workers), *blob_flags]
        if number < len(commands) and commands[number]:
            command = [part.format(port=port, store=store) for part in commands[number]]
        # Of a killed server this one stays: it must be where the next run of tests finds it.
        variables = {**environment(home), "HOLDFAST_RUN_DIR": str(in_memory("blobs"))}
        made.blob_servers.append(Terminal(command, home, home / f"blob{number}.log", variables, [port]))
    made.upload_port, made.download_port = free_port(), free_port()
    made.api_server = Terminal(
        [
            SOS, "api-server", "-api-host", "127.0.0.1", "-upload-port", str(made.upload_port),
            "-download-port", str(made.download_port), "-blob-server", ",".join(made.urls),
            "-workers", str(workers), *api_flags,
        ],
        home, home / "api.log", environment(home), [made.upload_port, made.download_port],
    )  # fmt: skip
    started: list[Terminal] = []
    try:
        for terminal in (*made.blob_servers, made.api_server):
            started.append(terminal)
            terminal.start()
        yield made
    except BaseException:
        for terminal in started:
            sys.stderr.write(f"--- {' '.join(terminal.command)}\n{terminal.said()[-3000:]}\n")
        raise
    finally:
        for terminal in started:
            terminal.kill()
        for server in made.blob_servers:
            shutil.rmtree(server.environment["HOLDFAST_RUN_DIR"], ignore_errors=True)


def environment(home: Path) -> dict[str, str]:
    """As a newcomer has it, with another home."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HOLDFAST_", "SOS_"))}
    return {**kept, "HOME": str(home), "PYTHONUNBUFFERED": "1"}


def request(method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> bytes:
    """The body of a 200. Raises HTTPError."""
    sent = Request(url, data=data, headers=dict(headers or {}), method=method)
    with urlopen(sent, timeout=120) as answer:
        body: bytes = answer.read()
        return body


def status(method: str, url: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> int:
    """The status of whatever answer."""
    try:
        request(method, url, data, headers)
    except HTTPError as error:
        error.close()
        return error.code
    return 200


def sha1(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()
