"""Rot is found by scrub and fsck and mended by repair, beside a running server; a drive given up without another."""

from pathlib import Path

import pytest

from holdfast.testing.server import Server
from tests.integration.conftest import StartServer
from tests.integration.operator import Objects, command

# The head of a segment names it and its drive; what follows are records.
HEAD_BYTES = 4096


def rot(drive: Path) -> None:
    """Flip every byte of every fragment of a drive, and nothing else."""
    for segment in (drive / "segments").iterdir():
        data = segment.read_bytes()
        segment.write_bytes(data[:HEAD_BYTES] + bytes(byte ^ 0xFF for byte in data[HEAD_BYTES : 16 << 20]))


@pytest.mark.slow
def test_rot_is_found_and_mended(start_server: StartServer) -> None:
    server = start_server(4)
    objects = Objects(server)
    objects.put(6)
    objects.check()
    rot(server.directories[1])
    found = command(server, "scrub", "--json")
    assert found.status == 1
    assert found.document["bad"] > 0
    objects.check()
    command(server, "repair").well()
    mended = command(server, "scrub", "--json").well().document
    assert (mended["bad"], mended["missing"]) == (0, [])
    assert mended["checked"] == sum(drive["fragments"] for drive in drives_of(server))
    server.stop()
    rot(server.directories[2])
    found = command(server, "fsck", "--read")
    assert found.status == 1
    assert "bad: block" in found.out
    command(server, "fsck", "--read", "--repair").well()
    command(server, "fsck", "--read").well()
    server.start()
    objects.check()
    command(server, "status").well()


@pytest.mark.slow
def test_a_dead_drive_is_drained_without_another(start_server: StartServer) -> None:
    server = start_server(5)
    objects = Objects(server)
    objects.put(6)
    dead = server.directories[3]
    dead.rename(dead.with_name("dead"))
    assert command(server, "status").status == 1
    said = command(server, "drive", "drain", dead).well()
    assert "is done with" in said.out
    command(server, "repair").well()
    command(server, "fsck", "--read").well()
    command(server, "status").well()
    # When it comes back it is left alone.
    dead.with_name("dead").rename(dead)
    server.stop()
    server.start()
    objects.put(3)
    objects.check()
    said = command(server, "drive", "list").well()
    assert "done with: it can be removed" in said.out


def drives_of(server: Server) -> list[dict[str, int]]:
    drives = command(server, "drive", "list", "--json").well().document["drives"]
    assert isinstance(drives, list)
    return drives
