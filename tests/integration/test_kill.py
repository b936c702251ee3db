"""kill -9 of any process at any moment under load.

Nothing acknowledged is missing or altered, nothing partial is visible, and nobody has to lend a hand: a worker or the
upkeep process is started again by the supervisor; when the supervisor itself dies the rest ends, and the same command
starts the store again. What the clients saw before, between and after is one history, checked as a whole.
"""

import time
from pathlib import Path
from random import Random

import pytest

from holdfast.testing.histories import overlap, save
from holdfast.testing.linearizability import check
from holdfast.testing.server import Server, ServerProcess
from holdfast.testing.workload import MIXED_BODIES, WRITE_MIX, Clients, Workload, final_reads
from tests.integration.conftest import StartServer

CLIENTS_COUNT = 4
WORKERS_COUNT = 2

# The supervisor, its workers, and the upkeep process.
PROCESSES_COUNT = 1 + WORKERS_COUNT + 1

# How long the supervisor may take to start what died.
RESPAWN_MAX_SECONDS = 60.0


def victim(server: Server, turn: int, random: Random) -> ServerProcess:
    """Every process has its turn: the supervisor each fourth time, else any other."""
    supervisor, *others = server.processes()
    return supervisor if turn % 4 == 3 or not others else random.choice(others)


def kill_one(server: Server, turn: int, random: Random) -> str:
    """Kill one process, and wait until the server is whole again without help."""
    process = victim(server, turn, random)
    server.kill_process(process.pid)
    if process.pid == server.pid:
        server.wait_orphans_gone()
        server.start()
        return "supervisor"
    deadline = time.monotonic() + RESPAWN_MAX_SECONDS
    while len(server.processes()) < PROCESSES_COUNT or process.pid in {p.pid for p in server.processes()}:
        assert time.monotonic() < deadline, f"{process} was not started again; running: {server.processes()}"
        time.sleep(0.02)
    server.wait_ready()
    return "upkeep" if "upkeep" in process.command else "worker"


def survive(start_server: StartServer, folder: Path, *, kills: int, drives: int, seed: int) -> None:
    random = Random(seed)
    server = start_server(drives, workers=WORKERS_COUNT)
    keys = tuple(f"key-{number}" for number in range(8))
    with server.client() as s3:
        assert s3.make_bucket("proof").status == 200
    plan = Workload(server.address, server.signer, "proof", keys, WRITE_MIX, MIXED_BODIES, seed=seed)
    clients = Clients(plan, CLIENTS_COUNT, folder)
    killed = []
    try:
        for turn in range(kills):
            time.sleep(random.uniform(0.1, 0.7))
            killed.append(kill_one(server, turn, random))
    except BaseException:
        clients.abandon()
        raise
    report = clients.finish()
    server.kill()
    server.start()
    with server.client() as s3:
        final, wrong = final_reads(s3, "proof", keys)
        assert s3.put("proof", "afterwards", b"it still takes writes").status == 200
    history = report.history + final
    print(f"\nkilled {killed}\n{report.requests} requests: {overlap(history)}\n{dict(sorted(report.statuses.items()))}")
    assert report.wrong + wrong == []
    violation = check(history)
    if violation is not None:
        save(folder / "violation.jsonl", history)
    assert violation is None, f"{violation}\nthe history is in {folder}"


@pytest.mark.slow
@pytest.mark.parametrize(("drives", "kills"), [(1, 6), (6, 14)])
def test_kill_any_process(start_server: StartServer, tmp_path: Path, drives: int, kills: int) -> None:
    survive(start_server, tmp_path, kills=kills, drives=drives, seed=drives)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_kill_any_process_often(start_server: StartServer, tmp_path: Path, seed: int) -> None:
    survive(start_server, tmp_path, kills=20, drives=(1, 3, 6)[seed % 3], seed=1000 + seed)
