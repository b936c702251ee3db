"""Per-key put, get, delete and compare-and-swap are linearizable, listings included, from every worker process.

Eight client processes use ten keys at most; what they saw is explained by one order of everything, or the test fails
and shows where it is not. `pytest -s` prints how concurrent the history was.
"""

from pathlib import Path

import pytest

from holdfast.testing.histories import overlap, save
from holdfast.testing.linearizability import check
from holdfast.testing.workload import MIXED_BODIES, READ_MIX, SMALL_BODIES, WRITE_MIX, Clients, Workload, final_reads
from tests.integration.conftest import StartServer

CLIENTS_COUNT = 8


def prove(
    start_server: StartServer, folder: Path, *, drives: int, workload: dict[str, object], operations: int, keys: int
) -> None:
    server = start_server(drives)
    names = tuple(f"key-{number}" for number in range(keys))
    with server.client() as s3:
        assert s3.make_bucket("proof").status == 200
    each = operations // CLIENTS_COUNT
    plan = Workload(server.address, server.signer, "proof", names, operations=each, **workload)  # type: ignore[arg-type]
    report = Clients(plan, CLIENTS_COUNT, folder).wait(seconds=operations / 100)
    with server.client() as s3:
        final, wrong = final_reads(s3, "proof", names)
    history = report.history + final
    print(f"\n{report.requests} requests: {overlap(history)}\n{dict(sorted(report.statuses.items()))}")
    assert report.wrong + wrong == []
    violation = check(history)
    if violation is not None:
        save(folder / "violation.jsonl", history)
    assert violation is None, f"{violation}\nthe history is in {folder}"
    # Nothing failed, so nothing hid behind "unknown".
    assert not [status for status in report.statuses if "no answer" in status or ": 5" in status], report.statuses
    figures = overlap(history)
    assert figures.maximum == CLIENTS_COUNT
    assert figures.contended > 0.5


@pytest.mark.slow
def test_small_objects_under_contention(start_server: StartServer, tmp_path: Path) -> None:
    plan: dict[str, object] = {"mix": READ_MIX, "sizes": SMALL_BODIES}
    prove(start_server, tmp_path, drives=1, workload=plan, operations=24_000, keys=4)


@pytest.mark.slow
def test_all_sizes_over_six_drives(start_server: StartServer, tmp_path: Path) -> None:
    plan: dict[str, object] = {"mix": WRITE_MIX, "sizes": MIXED_BODIES}
    prove(start_server, tmp_path, drives=6, workload=plan, operations=4_000, keys=6)


@pytest.mark.soak
@pytest.mark.parametrize("keys", [1, 10])
def test_a_hundred_thousand_operations(start_server: StartServer, tmp_path: Path, keys: int) -> None:
    plan: dict[str, object] = {"mix": READ_MIX, "sizes": SMALL_BODIES}
    prove(start_server, tmp_path, drives=6, workload=plan, operations=100_000, keys=keys)
