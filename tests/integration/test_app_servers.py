"""The application is plain ASGI: the same guarantees under granian, uvicorn and hypercorn, four workers each.

Each of them runs the application by itself, without our supervisor; the store was made by `holdfast serve` before.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.testing.histories import overlap
from holdfast.testing.linearizability import check
from holdfast.testing.server import Server, is_ready
from holdfast.testing.workload import SMALL_BODIES, WRITE_MIX, Clients, Workload, final_reads
from tests.integration.app_server import app_server

APPLICATION = "holdfast.cli.app:application"
WORKERS = 4
CLIENTS_COUNT = 8
OPERATIONS = 1_600
START_MAX_SECONDS = 120.0

COMMANDS = {
    "granian": ["granian", "--interface", "asgi", "--workers", str(WORKERS), "--host", "{host}", "--port", "{port}"],
    "uvicorn": ["uvicorn", "--workers", str(WORKERS), "--host", "{host}", "--port", "{port}", "--log-level", "warning"],
    "hypercorn": ["hypercorn", "--workers", str(WORKERS), "--bind", "{host}:{port}"],
}


@contextmanager
def running(name: str, server: Server, log: Path) -> Iterator[None]:
    """The application under another server, on the address and over the drives of `server`, which is not running."""
    host, port = server.address
    command = [part.format(host=host, port=port) for part in COMMANDS[name]]
    environment = server.environment() | {"HOLDFAST_DRIVES": ":".join(map(str, server.directories))}
    with app_server([*command, APPLICATION], environment, log) as process:
        deadline = time.monotonic() + START_MAX_SECONDS
        while not is_ready(server.address):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_compare_and_swap_and_list_after_write(name: str, tmp_path: Path) -> None:
    drives = [tmp_path / f"drive{number}" for number in range(3)]
    keys = tuple(f"key-{number}" for number in range(4))
    with Server(drives, tmp_path / "made.log") as server:
        with server.client() as s3:
            assert s3.make_bucket("proof").status == 200
        server.stop()
        with running(name, server, tmp_path / f"{name}.log"):
            plan = Workload(
                server.address,
                server.signer,
                "proof",
                keys,
                operations=OPERATIONS // CLIENTS_COUNT,
                mix=WRITE_MIX,
                sizes=SMALL_BODIES,
            )
            report = Clients(plan, CLIENTS_COUNT, tmp_path).wait(seconds=120)
            with server.client() as s3:
                final, wrong = final_reads(s3, "proof", keys)
    history = report.history + final
    print(f"\n{name}: {report.requests} requests: {overlap(history)}")
    assert report.wrong + wrong == []
    assert check(history) is None
    assert not [status for status in report.statuses if ": 5" in status], report.statuses
