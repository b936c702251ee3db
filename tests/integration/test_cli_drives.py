"""Drives listed, added, drained and replaced under a running server, and what is refused."""

import shutil
import time
from pathlib import Path

from holdfast.cli.system import SystemRandomness
from holdfast.drives.identity import create_drive, read_identity
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.server import Server
from tests.integration.conftest import StartServer
from tests.integration.operator import Objects, command, delete, until_served

# Running workers look once a second; the rest is for a loaded machine.
NOTICE_MAX_SECONDS = 60.0


def wait_until_open(server: Server, path: Path) -> None:
    """Until every process that has the store open has the drive at `path` open: its segments are held by them."""
    deadline = time.monotonic() + NOTICE_MAX_SECONDS
    while True:
        processes = server.processes()
        parents = {process.parent for process in processes}
        # The supervisor and granian's main process open nothing.
        missing = [p.pid for p in processes if p.pid not in parents and not _holds(p.pid, path)]
        if not missing:
            return
        assert time.monotonic() < deadline, f"{path} is not open in {missing} of {processes}"
        time.sleep(0.1)


def wait_until_coded(server: Server, code: str, *, workers: int) -> None:
    """Until every worker says that it codes new objects so."""
    deadline = time.monotonic() + NOTICE_MAX_SECONDS
    while server.log.read_text().count(f"new objects are coded as {code} from now on") < workers:
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.1)


def _holds(pid: int, path: Path) -> bool:
    return f"{path}/" in (Path("/proc") / str(pid) / "maps").read_text()


def test_one_drive_grows_to_six_and_is_drained(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(1)
    objects = Objects(server)
    objects.put(3)
    new = [tmp_path / f"new-{number}" for number in range(5)]
    also = [part for path in new[1:] for part in ("--also", str(path))]
    said = command(server, "drive", "add", new[0], *also).well()
    assert "new objects are kept as 4+2" in said.out
    assert "kept as 1 copy until `holdfast recode`" in said.out or "under-protected" in said.out
    for path in new:
        wait_until_open(server, path)
    wait_until_coded(server, "4+2", workers=2)
    objects.put(6)
    listed = command(server, "drive", "list", "--json").well().document["drives"]
    assert [drive["open"] for drive in listed] == [True] * 6
    status = command(server, "status", "--json").document
    assert status["code"] == "4+2"
    assert sum(group["contents"] for group in status["under_protected"]) == 2
    recoded = command(server, "recode").well()
    assert "2 contents" in recoded.out
    command(server, "repair").well()
    assert command(server, "status", "--json").well().document["under_protected"] == []
    said = command(server, "drive", "drain", server.directories[0]).well()
    assert f"{server.directories[0]} can be removed" in said.out
    delete(server.directories[0])
    objects.put(3)
    objects.check()
    server.stop()
    server.directories = (new[0],)
    server.start()
    assert f"{new[4]} belongs to this store and was not named" in server.log_tail()
    objects.check()
    command(server, "fsck", "--read").well()
    command(server, "scrub").well()


def test_what_is_no_new_drive_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    server, other = start_server(3), start_server(1)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("precious")
    for path, reason in (
        (foreign, "not Holdfast's"),
        (other.directories[0], "belongs to store"),
        (server.directories[1], "is a drive of this store already"),
    ):
        said = command(server, "drive", "add", path)
        assert (said.status, reason in said.errors) == (1, True), said.errors
    # A command that was cut off after it made the drive: the same one goes on.
    create_drive(OsDisk(), SystemRandomness(), tmp_path / "begun", read_identity(OsDisk(), server.directories[0]).store)
    command(server, "drive", "add", tmp_path / "begun").well()
    server.stop()
    lost = server.directories[1]
    shutil.rmtree(lost)
    lost.mkdir()
    said = command(server, "drive", "add", lost)
    assert said.status == 1
    assert "mount its disk there, or give it up" in said.errors
    assert list(lost.iterdir()) == []
    said = command(server, "drive", "replace", "0123456789", tmp_path / "new")
    assert said.status == 1
    assert "no drive of this store" in said.errors
    said = command(server, "drive", "replace", server.directories[0], tmp_path / "new")
    assert said.status == 1
    assert "answers" in said.errors


def test_an_empty_mount_point_is_a_missing_drive(start_server: StartServer) -> None:
    server = start_server(3)
    objects = Objects(server)
    objects.put(6)
    server.stop()
    pulled = server.directories[2]
    pulled.rename(pulled.with_name("pulled"))
    pulled.mkdir()
    server.start()
    assert f"missing: {pulled}" in server.log_tail()
    assert list(pulled.iterdir()) == []
    objects.check()
    objects.put(3)
    said = command(server, "status")
    assert said.status == 1
    assert f"1 drive missing: {pulled}" in said.out
    pulled.rmdir()
    pulled.with_name("pulled").rename(pulled)
    wait_until_open(server, pulled)
    command(server, "repair").well()
    command(server, "status").well()
    objects.check()


def test_two_of_two_and_one_lost(start_server: StartServer) -> None:
    """The smallest mirror: with one drive lost it only reads, until the lost one is replaced in place."""
    server = start_server(2)
    objects = Objects(server)
    objects.put(6)
    lost = server.directories[0]
    delete(lost)
    lost.mkdir()
    objects.check()
    command(server, "drive", "replace", lost, lost).well()
    command(server, "repair").well()
    # A process that did not see the drive go learns of the other one when it writes, and answers that with 503.
    until_served(lambda: objects.put(9 - len(objects.kept)))
    delete(server.directories[1])
    until_served(objects.check)


def test_another_run_directory_is_refused(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(1)
    said = command(server, "status", "--run-dir", tmp_path / "run")
    assert said.status == 1
    assert "another run directory" in said.errors
