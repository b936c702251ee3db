"""Per-key put, get, delete and compare-and-swap are linearizable, listings included, from every worker process.

Eight client processes use ten keys at most; what they saw is explained by one order of everything, or the test fails
and shows where it is not. `pytest -s` prints how concurrent the history was.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from holdfast.testing.histories import overlap, save
from holdfast.testing.linearizability import check
from holdfast.testing.server import Server
from holdfast.testing.workload import (
    MIXED_BODIES,
    READ_MIX,
    SMALL_BODIES,
    SWAP_MIX,
    WRITE_MIX,
    Clients,
    Workload,
    final_reads,
)
from tests.integration.conftest import StartServer

CLIENTS_COUNT = 8


def contend(server: Server, folder: Path, *, workload: Mapping[str, Any], operations: int, keys: int) -> list[str]:
    """Let the clients loose on a server; what no order of everything explains."""
    names = tuple(f"key-{number}" for number in range(keys))
    with server.client() as s3:
        assert s3.make_bucket("proof").status == 200
    plan = Workload(server.address, server.signer, "proof", names, operations=operations // CLIENTS_COUNT, **workload)
    report = Clients(plan, CLIENTS_COUNT, folder).wait(seconds=60 + operations / 100)
    with server.client() as s3:
        final, faults = final_reads(s3, "proof", names)
    history = report.history + final
    figures = overlap(history)
    print(f"\n{report.requests} requests: {figures}\n{dict(sorted(report.statuses.items()))}")
    assert figures.maximum == CLIENTS_COUNT
    assert figures.contended > 0.5
    # Nothing failed, or what is wrong might hide behind "unknown".
    faults += report.wrong + [f"{status} {times} times" for status, times in report.statuses.items() if is_odd(status)]
    violation = check(history)
    if violation is not None:
        save(folder / "violation.jsonl", history)
        faults.append(f"{violation}\nthe history is in {folder}")
    return faults


def is_odd(status: str) -> bool:
    """Whether a status is none that a healthy store answers; as in "put: 503" or "get: no answer"."""
    return "no" in status.partition(": ")[2] or ": 5" in status


@pytest.mark.slow
def test_small_objects_under_contention(start_server: StartServer, tmp_path: Path) -> None:
    plan = {"mix": READ_MIX, "sizes": SMALL_BODIES}
    assert contend(start_server(1), tmp_path, workload=plan, operations=12_000, keys=4) == []


@pytest.mark.slow
def test_compare_and_swap_under_contention(start_server: StartServer, tmp_path: Path) -> None:
    plan = {"mix": SWAP_MIX, "sizes": SMALL_BODIES}
    assert contend(start_server(1), tmp_path, workload=plan, operations=4_000, keys=2) == []


@pytest.mark.slow
def test_all_sizes_over_six_drives(start_server: StartServer, tmp_path: Path) -> None:
    plan = {"mix": WRITE_MIX, "sizes": MIXED_BODIES}
    assert contend(start_server(6), tmp_path, workload=plan, operations=2_400, keys=6) == []


@pytest.mark.soak
@pytest.mark.parametrize("keys", [1, 10])
def test_a_hundred_thousand_operations(start_server: StartServer, tmp_path: Path, keys: int) -> None:
    plan = {"mix": READ_MIX, "sizes": SMALL_BODIES}
    assert contend(start_server(6), tmp_path, workload=plan, operations=100_000, keys=keys) == []
