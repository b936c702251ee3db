"""The load generator against the bare ASGI stack: it counts, it verifies, and it says what failed.

The floor answers any GET with bytes of its own, so a load generator that verifies must refuse them.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from bench.rows import ROWS, Target
from bench.run import Result, make_bucket, prepare, run

from holdfast.testing.server import Server

SECONDS = 0.3


@pytest.fixture(scope="module")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("floor") / "log"
    with Server([], log, workers=1, executable=(sys.executable, "-m", "bench.asgi_floor")) as server:
        yield server


def measure(floor: Server, name: str, **fields: object) -> Result:
    target = replace(Target(floor.address, floor.signer, verify=False), **fields)  # type: ignore[arg-type]
    make_bucket(target)
    row = replace(ROWS[name], ahead_count=min(ROWS[name].ahead_count, 50))
    if row.prepare is not None and not row.exhaust:
        prepare(target, row.prepare)
    return run(target, row, pid=floor.pid, processes=2, warm=0.1, length=SECONDS)


@pytest.mark.parametrize("payload", ["signed", "unsigned", "chunked"])
@pytest.mark.parametrize("name", ["put-4k", "put-1m"])
def test_uploads(floor: Server, name: str, payload: str) -> None:
    result = measure(floor, name, payload=payload)
    assert (result.failures, result.errors) == (0, ())
    assert result.requests > 10
    assert 0 < result.p50_ms <= result.p99_ms
    assert 0 < result.server_cpu_ms < 1000
    assert 1 < result.memory_mib < 1000
    per_request = 1 if name == "put-1m" else None
    if per_request:
        assert result.rate == pytest.approx(result.requests * per_request / SECONDS)


def test_reads_and_lists_and_deletes(floor: Server) -> None:
    for name in ("head-4k", "list", "delete"):
        result = measure(floor, name)
        assert (result.failures, result.errors) == (0, ())
        assert result.requests > 10
        if result.unit == "keys/s":
            assert result.rate > result.requests


def test_wrong_bytes_are_refused(floor: Server) -> None:
    result = measure(floor, "get-4k", verify=True)
    assert result.verified == 0
    assert result.failures > 0
    assert "wrong bytes" in result.errors[0]
