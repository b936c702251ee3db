"""Disks are pulled from under a running server, or die; they are put back or replaced, running and across a restart.

Each drive is a mount of its own in a namespace of the test's. Pulling is a lazy unmount: the server keeps what it had
open, and whoever looks again finds an empty mount point. That is a missing drive, never a new one. Where loop devices
can be had (as root) the disks are ext4 on them, and can also die: every read and write answers EIO, and who touches
what is mapped from there is killed by SIGBUS. Elsewhere they are tmpfs, and those tests are skipped by name.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from holdfast.core.limits import MIB
from holdfast.testing.mounts import Mounts, NoNamespaces, why_no_loops
from holdfast.testing.server import Server
from tests.integration.conftest import make_directories
from tests.integration.operator import Objects, command, wait_healthy
from tests.integration.test_losses import check_clean, check_writes, restart, table

DISK_BYTES = 256 * MIB


@contextmanager
def mounted(home: Path, count: int, *, mortal: bool = False) -> Iterator[tuple[Server, Mounts]]:
    """A running server over so many mounted disks, named by their numbers; `mortal` ones can die."""
    reason = why_no_loops(home)
    if mortal and reason:
        pytest.skip(f"not run: dying disks. No ext4 on loop devices: {reason}")
    try:
        with Mounts(home, loops=not reason) as mounts:
            directories = make_directories(home / "store", count)
            for number, directory in enumerate(directories):
                mounts.make_disk(str(number), DISK_BYTES)
                mounts.insert(str(number), directory)
            with Server(directories, home / "log", inside=mounts.prefix) as server:
                yield server, mounts
    except NoNamespaces as error:
        pytest.skip(f"not run: pulled disks. {error}")


def is_empty(mounts: Mounts, place: Path) -> bool:
    """As those inside see it."""
    return mounts.run("ls", "-A", place) == ""


def bring_back(server: Server, mounts: Mounts, lost: Sequence[Path]) -> None:
    for place in lost:
        assert is_empty(mounts, place), "an empty mount point is no place for a store"
        mounts.insert(str(server.directories.index(place)), place)


def put_in_new(server: Server, mounts: Mounts, lost: Sequence[Path]) -> None:
    for place in lost:
        assert is_empty(mounts, place), "an empty mount point is no place for a store"
        name = f"new-{server.directories.index(place)}"
        mounts.make_disk(name, DISK_BYTES)
        mounts.insert(name, place)
        command(server, "drive", "replace", place, place).well()


def survive(home: Path, drives: int, *, replaced: bool, restarted: bool, died: bool = False) -> None:
    readable, writable = table()[drives]
    with mounted(home, drives, mortal=died) as (server, mounts):
        objects = Objects(server)
        objects.put(6)
        lost = Random(drives).sample(server.directories, readable)
        for place in lost:
            take_away(server, mounts, place, died=died)
        objects.check()
        check_writes(objects, is_writable=readable <= writable)
        if restarted:
            restart(server)
            objects.check()
            check_writes(objects, is_writable=readable <= writable)
        if died:
            bury(server, mounts, lost)
        if replaced:
            put_in_new(server, mounts, lost)
        else:
            bring_back(server, mounts, lost)
        check_clean(server)
        wait_healthy(server)
        objects.put(3)
        objects.check()
        others = [place for place in server.directories if place not in lost][:readable]
        for place in others:
            take_away(server, mounts, place, died=died)
        objects.check()


def take_away(server: Server, mounts: Mounts, place: Path, *, died: bool) -> None:
    if died:
        mounts.kill(str(server.directories.index(place)))
    else:
        mounts.pull(place)


def bury(server: Server, mounts: Mounts, lost: Sequence[Path]) -> None:
    """Dead disks are taken out, and what reached them is there when they are put in again."""
    for place in lost:
        mounts.pull(place)
        mounts.revive(str(server.directories.index(place)))


QUICK = [(6, False, True)]
ALL = [
    (drives, replaced, restarted) for drives in range(2, 8) for replaced in (False, True) for restarted in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize(("drives", "replaced", "restarted"), QUICK)
def test_disks_are_pulled(tmp_path: Path, drives: int, replaced: bool, restarted: bool) -> None:
    survive(tmp_path, drives, replaced=replaced, restarted=restarted)


@pytest.mark.soak
@pytest.mark.parametrize(("drives", "replaced", "restarted"), [case for case in ALL if case not in QUICK])
def test_disks_are_pulled_from_every_layout(tmp_path: Path, drives: int, replaced: bool, restarted: bool) -> None:
    survive(tmp_path, drives, replaced=replaced, restarted=restarted)


@pytest.mark.soak
@pytest.mark.parametrize(("drives", "replaced", "restarted"), ALL)
def test_disks_die_in_every_layout(tmp_path: Path, drives: int, replaced: bool, restarted: bool) -> None:
    survive(tmp_path, drives, replaced=replaced, restarted=restarted, died=True)


@pytest.mark.slow
@pytest.mark.parametrize("died", [False, True], ids=["pulled", "dead"])
def test_one_disk_after_the_other_while_it_is_written_to(tmp_path: Path, died: bool) -> None:
    """Each goes and is put back; in between the server makes itself whole again without help."""
    with mounted(tmp_path, 3, mortal=died) as (server, mounts):
        objects = Objects(server)
        for place in server.directories if died else server.directories[:2]:
            objects.put(3)
            take_away(server, mounts, place, died=died)
            objects.put(3)
            objects.check()
            if died:
                bury(server, mounts, [place])
            bring_back(server, mounts, [place])
            wait_healthy(server)
        objects.check()
        check_clean(server)
