"""The power goes, at any sync boundary of a real server under load; the store comes back with all that it promised.

`holdfast serve` runs under the recorder while clients put, overwrite, swap, delete and complete multipart uploads, and
mark in the trace when each request began and when its answer was there. Then the directories are made as they could
have been left at a boundary, the store is opened on them, and everything in it is read. What the clients had been told
by then, and what is found, must make one linearizable history: so nothing acknowledged is missing, nothing partial is
there, and what was under way either happened or did not.
"""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from shutil import rmtree

import msgspec
import pytest

from holdfast.core.limits import KIB
from holdfast.testing.histories import Action, Observed, Operation, Outcome, listing_reads
from holdfast.testing.linearizability import check
from holdfast.testing.power_cut import (
    Cut,
    Kind,
    Marker,
    Names,
    Record,
    Unsynced,
    World,
    cut_positions,
    read_trace,
)
from holdfast.testing.s3_client import Answer
from holdfast.testing.server import Server
from holdfast.testing.workload import Client, Workload
from tests.integration.conftest import make_directories
from tests.simulation import upkeep_scenario
from tests.simulation.planted import planted
from tests.simulation.recorded import build_recorder, recording_environment
from tests.simulation.reopen import Contents, reopen

BUCKET = "proof"
KEYS = tuple(f"key-{number}" for number in range(6))
CLIENTS_COUNT = 3
MIX = {"get": 2, "put": 8, "delete": 3, "create": 2, "swap": 3, "multipart": 3}

STYLES = [
    (Names.STRICT, Unsynced.LOST),
    (Names.ORDERED, Unsynced.LOST),
    (Names.ORDERED, Unsynced.TORN),
    (Names.ORDERED, Unsynced.TORN),
]


@dataclass(frozen=True, slots=True)
class Recording:
    """What a run left: its trace, its roots, which were empty before, and the keys that it used."""

    roots: list[Path]
    records: list[Record]
    keys: tuple[str, ...] = KEYS
    lost: int = 0
    """So many of the roots, the first ones, are drives that were lost before the end: they are not opened again."""
    begin: int = 0
    """Cuts come behind this record."""


class Mark(msgspec.Struct):
    """What a client notes in the trace: an operation, when it begins (`ended` False) and when it is answered."""

    client: int
    serial: int
    ended: bool
    operation: Operation


class MarkingClient(Client):
    """A client that says so in the trace before and after each request."""

    def __init__(self, workload: Workload, number: int, marker: Marker) -> None:
        super().__init__(workload, number)
        self._marker = marker
        self._marks = 0

    def _write(self, action: str, key: str, started: int) -> None:
        self._marks += 1
        before = len(self.report.history)
        try:
            super()._write(action, key, started)
        finally:
            for operation in self.report.history[before:]:
                self._mark(operation, ended=True)

    def _send(self, action: str, operation: Operation, body: bytes) -> Answer:
        self._mark(operation, ended=False)
        return super()._send(action, operation, body)

    def _mark(self, operation: Operation, *, ended: bool) -> None:
        self._marker.mark(msgspec.json.encode(Mark(self._number, self._marks, ended, operation)))


def told(records: Sequence[Record], position: int) -> list[Operation]:
    """What the clients knew at `position`, with positions in the trace for times."""
    begun: dict[tuple[int, int], Operation] = {}
    for index, record in enumerate(records[:position]):
        if record.kind is not Kind.MARK:
            continue
        mark = msgspec.json.decode(bytes(record.data), type=Mark)
        name = (mark.client, mark.serial)
        if not mark.ended:
            begun[name] = replace(mark.operation, started=index, ended=index, outcome=Outcome.UNKNOWN)
        elif mark.operation.outcome is not Outcome.UNKNOWN:
            begun[name] = replace(mark.operation, started=begun[name].started, ended=index)
    return list(begun.values())


def found(contents: Contents, position: int, keys: Sequence[str]) -> Iterator[Operation]:
    """What is in the reopened store: reads that come after everything."""
    for key in keys:
        yield Operation(-1, key, Action.READ, position + 1, position + 2, contents.etags.get(key))
    yield from listing_reads(Observed(-1, position + 3, position + 4, contents.listed), keys)


def record_run(
    library: Path, home: Path, *, drives: int, requests: int, seed: int, extra: Mapping[str, str]
) -> Recording:
    """Load a recorded server, and kill it."""
    roots = make_directories(home, drives)
    trace = home / "trace"
    trace.touch()
    marker = Marker(trace)
    environment = {**recording_environment(library, trace, roots), **extra}
    with Server(roots, home / "log", workers=2, environment=environment) as server:
        with server.client() as s3:
            assert s3.make_bucket(BUCKET).status == 200
        sizes = (100, 3 * KIB, 70 * KIB, 500 * KIB)
        plan = Workload(server.address, server.signer, BUCKET, KEYS, MIX, sizes, seed=seed)
        clients = [MarkingClient(plan, number, marker) for number in range(CLIENTS_COUNT)]

        def work(client: MarkingClient) -> None:
            random = Random(seed * 100 + client._number)
            for _ in range(requests // CLIENTS_COUNT):
                client.step(random.choices(list(MIX), list(MIX.values()))[0], random.choice(KEYS))
            client.close()

        threads = [threading.Thread(target=work, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wrong = [wrong for client in clients for wrong in client.report.wrong]
        statuses = {status for client in clients for status in client.report.statuses}
        assert wrong == []
        assert not [status for status in statuses if ": 5" in status or "no" in status], statuses
    marker.close()
    return Recording(roots, read_trace(trace))


def try_cut(world: World, recording: Recording, cut: Cut, bug: str) -> list[str]:
    """What is wrong after one cut. The directories are made where they were: a store may know its own paths."""
    world.materialise(cut, recording.roots)
    for root in recording.roots[: recording.lost]:
        rmtree(root)
    spare = recording.roots[-1] if recording.lost else None
    contents = reopen(recording.roots[recording.lost :], BUCKET, recording.keys, bug, spare=spare)
    faults = [f"{cut}: {fault}" for fault in contents.faults]
    violation = check([*told(recording.records, cut.position), *found(contents, cut.position, recording.keys)])
    if violation is not None:
        faults.append(f"{cut}: {violation}")
    for root in recording.roots[recording.lost :]:
        rmtree(root)
    return faults


def chosen_cuts(positions: Sequence[int], count: int | None, seed: int) -> list[Cut]:
    """Every boundary, or `count` of them spread over the run; the styles take turns, and the seed says which begins."""
    if count is None:
        return [
            Cut(position, *STYLES[(turn + seed) % len(STYLES)], seed * len(positions) + turn)
            for turn, position in enumerate(positions)
        ]
    random = Random(seed)
    step = len(positions) / count
    return [
        Cut(positions[int(turn * step + random.random() * step)], *STYLES[turn % len(STYLES)], seed * 1000 + turn)
        for turn in range(count)
    ]


def find_losses(
    library: Path,
    home: Path,
    *,
    drives: int,
    requests: int,
    cuts: int | None,
    seed: int = 1,
    bug: str = "",
    enough: int = 5,
) -> list[str]:
    """What is wrong after cuts of one recorded run under load."""
    recording = record_run(
        library, home, drives=drives, requests=requests, seed=seed, extra=planted(bug) if bug else {}
    )
    return losses(recording, cuts=cuts, seed=seed, bug=bug, enough=enough)


def losses(recording: Recording, *, cuts: int | None, seed: int = 1, bug: str = "", enough: int = 5) -> list[str]:
    """What is wrong after cuts of a recording; stops when it is `enough`.

    A bug that takes every boundary is looked for in every style, too.
    """
    for root in recording.roots[recording.lost :]:
        rmtree(root)
    faults: list[str] = []
    for turn in range(len(STYLES) if bug and cuts is None else 1):
        faults += _losses(recording, cuts, seed + turn, bug, enough)
        if len(faults) >= enough:
            break
    return faults


def _losses(recording: Recording, cuts: int | None, seed: int, bug: str, enough: int) -> list[str]:
    world = World(recording.roots, empty=True)
    positions = [position for position in cut_positions(recording.records) if position > recording.begin]
    if bug:
        # Found where it counts: once somebody was told something.
        first = next(index for index, record in enumerate(recording.records) if record.kind is Kind.MARK)
        positions = [position for position in positions if position > first]
    tried = sorted(chosen_cuts(positions, cuts, seed), key=lambda cut: cut.position)
    print(f"\n{len(recording.records)} records, {len(positions)} sync boundaries, {len(tried)} cuts")
    faults: list[str] = []
    for cut in tried:
        world.advance(recording.records, cut.position)
        faults += try_cut(world, recording, cut, bug)
        if len(faults) >= enough:
            break
    return faults


def record_upkeep(library: Path, home: Path, drives: int, extra: Mapping[str, str] | None = None) -> Recording:
    """Record the making, filling, tidying and compacting of a store, by two processes one after the other."""
    roots = make_directories(home, drives)
    return record_phases(library, home, roots, {"fill": roots, "tidy": roots}, extra)


def record_repair(library: Path, home: Path, drives: int, extra: Mapping[str, str] | None = None) -> Recording:
    """Record the making and filling of a store, and then how a lost drive of it is replaced and repaired."""
    roots = make_directories(home, drives + 1)
    record_phases(library, home, roots, {"fill": roots[:-1]}, extra)
    # Gone from where it was, or the store would find it there.
    roots[0].rename(home / "lost")
    recording = record_phases(library, home, roots, {"mend": roots[1:]}, extra)
    mending = recording.records[-1].thread[0]
    begin = next(index for index, record in enumerate(recording.records) if record.thread[0] == mending)
    return replace(recording, lost=1, begin=begin)


def record_phases(
    library: Path, home: Path, roots: list[Path], phases: Mapping[str, list[Path]], extra: Mapping[str, str] | None
) -> Recording:
    """Record phases of the upkeep scenario, each by a process of its own over its directories."""
    trace, run = home / "trace", home / "run"
    environment = {
        **os.environ,
        **recording_environment(library, trace, roots),
        "HOLDFAST_RUN_DIR": str(run),
        **(extra or {}),
    }
    for phase, directories in phases.items():
        command = [sys.executable, "-m", "tests.simulation.upkeep_scenario", phase, str(trace), *map(str, directories)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return Recording(roots, read_trace(trace), upkeep_scenario.KEYS)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_recorder(tmp_path_factory.mktemp("recorder"))


@pytest.mark.slow
@pytest.mark.parametrize(("drives", "cuts"), [(1, 10), (6, 14)])
def test_a_power_cut_loses_nothing(recorder: Path, tmp_path: Path, drives: int, cuts: int) -> None:
    assert find_losses(recorder, tmp_path, drives=drives, requests=60, cuts=cuts) == []


@pytest.mark.soak
@pytest.mark.parametrize("drives", [1, 3, 6])
def test_a_power_cut_at_every_boundary_loses_nothing(recorder: Path, tmp_path: Path, drives: int) -> None:
    assert find_losses(recorder, tmp_path, drives=drives, requests=90, cuts=None) == []


@pytest.mark.slow
def test_a_power_cut_during_upkeep_loses_nothing(recorder: Path, tmp_path: Path) -> None:
    """Collection, compaction and a metadata checkpoint."""
    assert losses(record_upkeep(recorder, tmp_path, 3), cuts=12) == []


@pytest.mark.soak
@pytest.mark.parametrize("drives", [1, 6])
def test_a_power_cut_anywhere_in_upkeep_loses_nothing(recorder: Path, tmp_path: Path, drives: int) -> None:
    assert losses(record_upkeep(recorder, tmp_path, drives), cuts=None) == []


@pytest.mark.slow
def test_a_power_cut_during_repair_loses_nothing(recorder: Path, tmp_path: Path) -> None:
    """A lost drive is replaced and made again; and what the cut left of that can be brought to its end."""
    assert losses(record_repair(recorder, tmp_path, 3), cuts=10) == []


@pytest.mark.soak
@pytest.mark.parametrize("drives", [3, 6])
def test_a_power_cut_anywhere_in_repair_loses_nothing(recorder: Path, tmp_path: Path, drives: int) -> None:
    assert losses(record_repair(recorder, tmp_path, drives), cuts=None) == []
