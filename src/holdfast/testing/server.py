"""A real server under test: `holdfast serve` as processes of its own, started, killed and started again.

The server leads a session of its own, so that every process it ever starts can be found by the session's number, be
killed one at a time, and is killed for certain at the end, whatever became of its parents. What it printed is kept in
a file and shown when it does not come up.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.testing.s3_client import NoAnswer, S3Client
from holdfast.testing.shared_memory import in_memory
from holdfast.testing.signing import Signer

ACCESS_KEY = "HOLDFASTTESTKEY00001"
SECRET_KEY = "of-no-use-anywhere-else-0123456789abcdef"  # noqa: S105

# A start after a crash replays logs; the promise for an ordinary one is 2 s, this is when a test gives up. Beside other
# tests on few cores a start takes many times as long as it works.
READY_MAX_SECONDS = 120.0

# Draining ends when the requests in flight do; after 30 s the supervisor kills whoever has not ended.
STOP_MAX_SECONDS = 45.0

# Whoever loses its supervisor has to notice by itself.
ORPHANS_MAX_SECONDS = 10.0

LOG_SHOWN_BYTES = 6000

# The number of threads in /proc/PID/stat, counted from behind the session (proc(5): field 20 of which that is the 6th).
_THREADS_FIELD = 13


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """One process of a server."""

    pid: int
    parent: int
    command: str


class Server:
    """One `holdfast serve` over `directories`; a context manager that leaves no process behind."""

    def __init__(
        self,
        directories: Sequence[Path],
        log: Path,
        *,
        workers: int = 2,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        inside: Sequence[str] = (),
        prefix: Sequence[str] = (),
        executable: Sequence[str] = (),
    ) -> None:
        """Starts nothing yet.

        `inside` is put before the command and becomes it, as ("nsenter", ...) does; commands on the store go there too.
        `prefix` is put before the command and stays its parent, as in ("strace", "-f"); `executable` replaces it.
        """
        self.directories = tuple(directories)
        self.log = log
        self.signer = Signer(ACCESS_KEY, SECRET_KEY)
        self._workers = workers
        self._options = tuple(options)
        self._environment = dict(environment or {})
        self.inside = tuple(inside)
        self._prefix = tuple(prefix)
        self._executable = tuple(executable) or (str(Path(sys.executable).with_name("holdfast")),)
        self._process: subprocess.Popen[bytes] | None = None
        # On tmpfs as in real life: it outlives processes and not a power cut.
        self.run_directory = in_memory("server")
        self.metrics_address = ("127.0.0.1", free_port())
        self.address = ("127.0.0.1", free_port())

    @property
    def endpoint(self) -> str:
        return f"http://{self.address[0]}:{self.address[1]}"

    @property
    def pid(self) -> int:
        """Of what was started: the supervisor, or the prefix's process. Also the session's number."""
        assert self._process is not None, "not started"
        return self._process.pid

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException as error:
            self.__exit__(type(error), None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self.run_directory, ignore_errors=True)
        if error is not None:
            sys.stderr.write(f"--- the server's log, {self.log}\n{self.log_tail()}\n")

    def client(self, *, timeout_seconds: float = 60.0) -> S3Client:
        return S3Client(self.address, self.signer, timeout_seconds=timeout_seconds)

    def command(self) -> list[str]:
        listen = f"{self.address[0]}:{self.address[1]}"
        return [
            *self.inside, *self._prefix, *self._executable, "serve", *map(str, self.directories),
            "--listen", listen, "--workers", str(self._workers), *self._options,
        ]  # fmt: skip

    def start(self, *, ready_seconds: float = READY_MAX_SECONDS) -> float:
        """Start, and wait until it says that it is ready; the seconds it took."""
        assert self._process is None, "already started"
        began = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - what is run is the caller's choice, that is its purpose
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment(),
                start_new_session=True,
            )
        self.wait_ready(ready_seconds)
        return time.monotonic() - began

    def wait_ready(self, seconds: float = READY_MAX_SECONDS) -> None:
        """Wait for 200 from /health/ready. Raises TimeoutError, or ChildProcessError when it ended instead."""
        deadline = time.monotonic() + seconds
        while not is_ready(self.address):
            assert self._process is not None, "not started"
            status = self._process.poll()
            if status is not None:
                raise ChildProcessError(f"{' '.join(self.command())} ended with {status}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {seconds:.0f} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def processes(self) -> list[ServerProcess]:
        """Every living process of the server, the one that was started first, then by process id."""
        if self._process is None:
            return []
        found = session_processes(self.pid)
        return sorted(found, key=lambda process: (process.pid != self.pid, process.pid))

    def supervisor(self) -> int:
        """The supervisor's process id, which with a prefix is not that of what was started."""
        if not self._prefix:
            return self.pid
        return next(process.pid for process in self.processes() if process.parent == self.pid)

    def stop(self) -> int:
        """Ask it to end as Ctrl-C does, and wait until all its processes are gone; its exit status."""
        assert self._process is not None, "not started"
        os.kill(self.supervisor(), signal.SIGINT)
        try:
            status = self._process.wait(STOP_MAX_SECONDS)
            self._wait_gone(ORPHANS_MAX_SECONDS)
        finally:
            self.kill()
        return status

    def kill(self) -> None:
        """kill -9 of everything at once, and wait. Afterwards `start` starts it again, on the same address."""
        if self._process is None:
            return
        deadline = time.monotonic() + ORPHANS_MAX_SECONDS
        while processes := session_processes(self.pid):
            for process in processes:
                _kill(process.pid)
            self._process.poll()
            if time.monotonic() > deadline:
                raise TimeoutError(f"cannot be killed: {processes}")
            time.sleep(0.005)
        self._process.wait()
        self._process = None

    def kill_process(self, pid: int) -> None:
        """kill -9 of one of the server's processes; the others are left to cope."""
        assert any(process.pid == pid for process in self.processes()), "only what belongs to this server is killed"
        _kill(pid)

    def environment(self) -> dict[str, str]:
        """What the server, and commands on the same store, are started with."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("HOLDFAST_")},
            "HOLDFAST_ROOT_ACCESS_KEY": ACCESS_KEY,
            "HOLDFAST_ROOT_SECRET_KEY": SECRET_KEY,
            "HOLDFAST_METRICS_LISTEN": f"{self.metrics_address[0]}:{self.metrics_address[1]}",
            "HOLDFAST_RUN_DIR": str(self.run_directory),
            **self._environment,
        }

    def wait_orphans_gone(self) -> None:
        """After the supervisor was killed: wait until the rest has noticed. Raises TimeoutError if it does not."""
        assert self._process is not None, "not started"
        self._process.wait()
        self._wait_gone(ORPHANS_MAX_SECONDS)
        self._process = None

    def _wait_gone(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while processes := session_processes(self.pid):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still running after {seconds:.0f} s: {processes}")
            time.sleep(0.01)

    def log_tail(self) -> str:
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[-LOG_SHOWN_BYTES:].decode(errors="replace")


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_ready(address: tuple[str, int]) -> bool:
    """Whether /health/ready answers 200 there."""
    try:
        with S3Client(address, Signer("", ""), timeout_seconds=2.0) as client:
            return client.request("GET", "/health/ready").status == 200
    except NoAnswer:
        return False


def session_processes(session: int) -> list[ServerProcess]:
    """The living processes of a session. A zombie is not living, unless threads of it are still on their way out: they
    hold its files and sockets open."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold anything, so count from behind it: state, parent, group, session.
            state, parent, _, owner, *rest = (entry / "stat").read_text().rpartition(")")[2].split()
            threads = int(rest[_THREADS_FIELD])
            if int(owner) == session and (state not in "ZX" or threads > 1):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append(ServerProcess(int(entry.name), int(parent), command))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
