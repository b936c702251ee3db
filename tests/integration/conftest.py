"""Real servers for the proofs: in directories of the test's own, killed for certain when it ends."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.server import Server

StartServer = Callable[..., Server]

SERVERS = pytest.StashKey[list[Server]]()


def make_directories(home: Path, count: int) -> list[Path]:
    """Empty directories for a store's drives."""
    directories = [home / f"drive-{number}" for number in range(count)]
    for directory in directories:
        directory.mkdir(parents=True)
    return directories


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what its servers said."""
    report = yield
    if report.failed and report.when == "call":
        report.sections += [(str(server.log), server.log_tail()) for server in item.stash.get(SERVERS, [])]
    return report


@pytest.fixture
def start_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[StartServer]:
    """start_server(drives, **as Server): a running server over so many empty directories."""
    servers = request.node.stash[SERVERS] = list[Server]()
    with ExitStack() as stack:

        def start(drives: int, **options: Any) -> Server:
            number = len(list(tmp_path.glob("store-*")))
            home = tmp_path / f"store-{number}"
            server = Server(make_directories(home, drives), home / "log", **options)
            servers.append(server)
            return stack.enter_context(server)

        yield start
