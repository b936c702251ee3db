"""Whatever process of a server dies, the others cope; when the supervisor dies, nobody is left behind."""

import time
from collections.abc import Callable

import pytest

from holdfast.testing.server import Server, session_processes
from tests.integration.conftest import StartServer

# Of what happens by itself or never: a machine may be busy.
GONE_MAX_SECONDS = 60.0
BACK_MAX_SECONDS = 60.0


def children(server: Server, parent: int) -> list[int]:
    return [process.pid for process in server.processes() if process.parent == parent]


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("pause", [0.0, 0.03, 0.09, 0.6])
def test_nobody_outlives_the_supervisor(start_server: StartServer, pause: float) -> None:
    """Also when it dies while a worker is being started again."""
    server = start_server(1)
    worker = children(server, children(server, server.pid)[0])[0]
    server.kill_process(worker)
    time.sleep(pause)
    server.kill_process(server.pid)
    wait_for(lambda: not session_processes(server.pid), GONE_MAX_SECONDS)


@pytest.mark.slow
def test_every_child_is_started_again(start_server: StartServer) -> None:
    server = start_server(1)
    session = server.pid
    count = len(server.processes())
    first = children(server, session)
    for child in first:
        server.kill_process(child)
        wait_for(lambda: len(server.processes()) == count, BACK_MAX_SECONDS)
        server.wait_ready()
    with server.client() as s3:
        assert s3.make_bucket("bucket").status == 200
    assert server.stop() == 0
    assert session_processes(session) == []
