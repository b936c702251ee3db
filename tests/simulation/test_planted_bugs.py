"""Each planted bug is found by the proof that is there for it: a proof that finds nothing proves nothing.

The proofs are the ones that the real store passes, with the same loads and the same judgement.
"""

from pathlib import Path
from random import Random
from threading import Event

import pytest

from holdfast.core.limits import KIB
from holdfast.meta.local.witness import decode_witness
from holdfast.testing.s3_client import Answer
from holdfast.testing.server import Server
from holdfast.testing.workload import READ_MIX, SMALL_BODIES, SWAP_MIX, WRITE_MIX, body_fault, make_body
from tests.integration.conftest import make_directories
from tests.integration.test_linearizability import contend
from tests.integration.test_syncs import unsynced
from tests.simulation.planted import planted
from tests.simulation.planted.bugs import BUGS
from tests.simulation.recorded import build_recorder
from tests.simulation.test_power_cut import find_losses, losses, record_upkeep

# One for each proof, and the oldest mistake of all.
EVERY_COMMIT = [
    "log-not-synced",
    "segments-not-synced",
    "rows-cached",
    "conditions-seen-too-early",
    "leaves-not-checked",
]

# Of the histories: what shows a bug best.
MIXES = {"deletes-forgotten": WRITE_MIX, "conditions-seen-too-early": SWAP_MIX}

HISTORIES_MAX = 6


def rotten_reads(home: Path, bug: str) -> list[str]:
    """Flip bytes of what m drives hold, under a running server; what it then reads wrong, or cannot read."""
    directories = make_directories(home, 6)
    bodies = {f"key-{number}": make_body(0, number, 700 * KIB) for number in range(8)}
    faults = []
    with Server(directories, home / "log", workers=1, environment=planted(bug) if bug else {}) as server:
        with server.client() as s3:
            assert s3.make_bucket("proof").status == 200
            for key, body in bodies.items():
                assert s3.put("proof", key, body).status == 200
        server.kill()
        random = Random(2)
        for directory in directories[:2]:
            for segment in (directory / "segments").glob("*.segment"):
                rot(segment, random)
        server.start()
        with server.client() as s3:
            for key, body in bodies.items():
                answer = s3.get("proof", key)
                if answer.status != 200 or answer.body != body:
                    faults.append(f"{key}: {answer.status} {body_fault(answer.body)}")
    return faults


def stale_reads(home: Path, bug: str) -> list[str]:
    """A drive is away while objects are replaced and new ones come; it comes back, another goes: what is then wrong.

    The drive that stays has all of the metadata; the one that came back has it as it was, and comes first.
    """
    directories = make_directories(home, 3)
    stale, gone, staying = directories
    away = home / "away"
    bodies: dict[str, bytes] = {}
    with Server(directories, home / "log", workers=1, environment=planted(bug) if bug else {}) as server:
        with server.client() as s3:
            assert s3.make_bucket("proof").status == 200
        for turn, (leaving, coming) in enumerate([(None, None), (stale, None), (gone, stale)]):
            if turn:
                server.stop()
            if coming is not None:
                away.rename(coming)
            if leaving is not None:
                leaving.rename(away)
            if turn:
                server.start()
            with server.client() as s3:
                if turn == 2:
                    return [fault for key, body in bodies.items() if (fault := wrong(s3.get("proof", key), key, body))]
                for number in range(turn, turn + 3):
                    bodies[f"key-{number}"] = make_body(turn, number, KIB)
                    assert s3.put("proof", f"key-{number}", bodies[f"key-{number}"]).status == 200
            wait_for_mirror(gone if turn == 0 else staying)
    raise AssertionError("the third turn reads")


def wrong(answer: Answer, key: str, body: bytes) -> str:
    """What is wrong with the answer to a get; "" when nothing is."""
    if answer.status == 200 and answer.body == body:
        return ""
    return f"{key}: {answer.status} {body_fault(answer.body)}"


def wait_for_mirror(directory: Path) -> None:
    """Until the drive mirrors the metadata, which upkeep sees to when another is lost."""
    for _ in range(600):
        witness = decode_witness((directory / "meta" / "witness").read_bytes())
        if witness.drive in witness.mirrors:
            return
        Event().wait(0.05)
    raise AssertionError(f"{directory} does not become a mirror")


def rot(path: Path, random: Random) -> None:
    """A wrong byte in every stretch of 16 KiB that is not empty."""
    with path.open("r+b") as file:
        start = 0
        while piece := file.read(16 * KIB):
            if any(piece) and start:
                file.seek(start + random.randrange(len(piece)))
                file.write(b"\xa5")
            start += len(piece)
            file.seek(start)


def contradictions(home: Path, bug: str) -> list[str]:
    """What no order of everything explains, in the first of some short histories that has such a thing.

    Two requests that collide only under a bug do so by chance: a history of a few seconds has none now and then.
    """
    plan = {"mix": MIXES.get(bug, READ_MIX), "sizes": SMALL_BODIES}
    for turn in range(HISTORIES_MAX):
        folder = home / str(turn)
        folder.mkdir()
        environment = planted(bug) if bug else {}
        with Server(make_directories(folder, 1), folder / "log", workers=2, environment=environment) as server:
            if faults := contend(server, folder, workload=plan, operations=4_000, keys=2):
                return faults
    return []


def faults_of(proof: str, home: Path, bug: str) -> list[object]:
    """What a proof finds in a store with a bug."""
    match proof:
        case "syncs":
            return list(unsynced(home, drives=6, segments=5, mirrors=3, environment=planted(bug) if bug else {}))
        case "power cut":
            library, cuts = build_recorder(home), BUGS[bug].cuts if bug else 24
            # What every boundary is tried for depends on which pages are torn: now and then 45 requests had none.
            requests = 45 if cuts is not None else 150
            return list(find_losses(library, home, drives=1, requests=requests, cuts=cuts, bug=bug, enough=1))
        case "upkeep":
            recording = record_upkeep(build_recorder(home), home, 1, extra=planted(bug) if bug else {})
            return list(losses(recording, cuts=BUGS[bug].cuts if bug else 24, bug=bug, enough=1))
        case "rot":
            return list(rotten_reads(home, bug))
        case "stale drive":
            return list(stale_reads(home, bug))
        case _:
            return list(contradictions(home, bug))


@pytest.mark.slow
@pytest.mark.parametrize(
    "bug", [name if name in EVERY_COMMIT else pytest.param(name, marks=pytest.mark.soak) for name in BUGS]
)
def test_found(tmp_path: Path, bug: str) -> None:
    faults = faults_of(BUGS[bug].proof, tmp_path, bug)
    print(f"\n{bug}: {len(faults)} faults", *faults, sep="\n")
    assert faults


@pytest.mark.slow
def test_a_stale_drive_alone_is_no_fault(tmp_path: Path) -> None:
    assert stale_reads(tmp_path, "") == []


@pytest.mark.slow
def test_rot_alone_is_no_fault(tmp_path: Path) -> None:
    """The other proofs have tests of their own on the store as it is."""
    assert rotten_reads(tmp_path, "") == []
