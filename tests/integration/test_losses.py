"""docs/operating/losses.md, held to: what each default layout survives, running and across a restart.

Drives are deleted, emptied, overwritten in place, and swapped for each other under a real server. Reads stay right
throughout; afterwards the lost drives are replaced, repair ends, and scrub and fsck find nothing.
"""

import re
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random

import pytest
from botocore.exceptions import ClientError

from holdfast.testing.server import Server
from tests.integration.conftest import StartServer
from tests.integration.operator import Objects, command, delete, until_served, wait_healthy

PAGE = Path(__file__).parents[2] / "docs" / "operating" / "losses.md"

# What lies where the drives are is looked at once a second.
NOTICE_MAX_SECONDS = 60.0

# Who dies of a view that was written over is started again, twice at most.
RESTARTED_MAX_SECONDS = 120.0


def empty(directory: Path) -> None:
    """An unmounted disk: the mount point is there, and nothing in it."""
    directory.rename(directory.with_name(f"was-{directory.name}"))
    directory.mkdir()
    delete(directory.with_name(f"was-{directory.name}"))


def overwrite(directory: Path) -> None:
    """Every file keeps its name and length, and no byte of what it was."""
    random = Random(1)
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            with path.open("r+b") as file:
                file.write(random.randbytes(min(path.stat().st_size, 8 * 1024 * 1024)))


DAMAGES: dict[str, Callable[[Path], None]] = {"delete": delete, "empty": empty, "overwrite": overwrite}


def table() -> dict[int, tuple[int, int]]:
    """By number of drives, from the page: how many may be lost and all is still readable; and writable."""
    rows = re.findall(r"^\| (\d) \| [^|]+\| \*\*(\d)\*\* \| \*\*(\d)\*\* \|", PAGE.read_text(), re.MULTILINE)
    return {int(drives): (int(readable), int(writable)) for drives, readable, writable in rows}


def through_deaths(call: Callable[[], None]) -> None:
    """What is mapped from a drive that is written over may end all workers at once (docs/known-limits.md): until they
    are there again nobody listens. Whatever is answered must be right all the same."""
    until_served(call, seconds=RESTARTED_MAX_SECONDS, waited_out=frozenset())


def at_once(call: Callable[[], None]) -> None:
    call()


def restart(server: Server) -> None:
    server.stop()
    server.start()


def check_writes(objects: Objects, *, is_writable: bool) -> None:
    """Objects that need the whole width of the code are taken, or refused with 503 once the loss is noticed."""
    if is_writable:
        objects.put(1, sizes=(3_000_000,))
        return
    assert refusal(objects) == 503


def refusal(objects: Objects) -> int:
    """With what status a put is refused. What became of the very one that meets the loss may be unknown: 500."""
    deadline = time.monotonic() + NOTICE_MAX_SECONDS
    status = 200
    while status in (200, 500) and time.monotonic() < deadline:
        try:
            objects.put(1, sizes=(3_000_000,))
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    return status


def replace(server: Server, lost: Sequence[Path]) -> None:
    for path in lost:
        new = path
        if path.exists() and any(path.iterdir()):
            new = path.with_name(f"new-{path.name}")
            server.directories = tuple(new if other == path else other for other in server.directories)
        command(server, "drive", "replace", path, new).well()


def check_clean(server: Server) -> None:
    command(server, "repair").well()
    command(server, "scrub").well()
    command(server, "fsck", "--read").well()


def survive(start_server: StartServer, drives: int, losses: int, damage: str, *, is_writable: bool) -> None:
    server = start_server(drives)
    objects = Objects(server)
    objects.put(6)
    lost = Random(drives).sample(server.directories, losses)
    for path in lost:
        DAMAGES[damage](path)
    do = through_deaths if damage == "overwrite" else at_once
    do(objects.check)
    do(partial(check_writes, objects, is_writable=is_writable))
    restart(server)
    objects.check()
    check_writes(objects, is_writable=is_writable)
    replace(server, lost)
    check_clean(server)
    wait_healthy(server)
    objects.put(3)
    objects.check()
    others = [path for path in server.directories if path not in lost][:losses]
    for path in others:
        delete(path)
    objects.check()


QUICK = [(4, "delete"), (6, "overwrite")]
ALL = [(drives, damage) for drives in range(2, 8) for damage in DAMAGES]


@pytest.mark.slow
@pytest.mark.parametrize(("drives", "damage"), QUICK)
def test_as_many_as_are_readable(start_server: StartServer, drives: int, damage: str) -> None:
    readable, writable = table()[drives]
    survive(start_server, drives, readable, damage, is_writable=readable <= writable)


@pytest.mark.soak
@pytest.mark.parametrize(("drives", "damage"), [case for case in ALL if case not in QUICK])
def test_every_layout_and_damage(start_server: StartServer, drives: int, damage: str) -> None:
    readable, writable = table()[drives]
    survive(start_server, drives, readable, damage, is_writable=readable <= writable)
    if 0 < writable < readable:
        survive(start_server, drives, writable, damage, is_writable=True)


@pytest.mark.slow
def test_drives_swapped_for_each_other(start_server: StartServer) -> None:
    """Running and across a restart: a drive is where its identity is, so nothing is lost and nothing to repair."""
    server = start_server(3)
    objects = Objects(server)
    objects.put(6)
    one, two, three = server.directories
    swap(one, two)
    check_once_opened(objects)
    objects.put(1)
    restart(server)
    objects.check()
    server.stop()
    swap(two, three)
    server.start()
    objects.put(1)
    objects.check()
    check_clean(server)
    wait_healthy(server)


def check_once_opened(objects: Objects) -> None:
    """Between letting go of drives and opening them where they are now, what only they hold is answered with 503."""
    until_served(objects.check)


def swap(one: Path, two: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    two.rename(one)
    between.rename(two)


def test_the_page_speaks_of_every_default_layout() -> None:
    assert sorted(table()) == [1, 2, 3, 4, 5, 6, 7]
    for drives, (readable, writable) in table().items():
        assert 0 <= writable <= readable < drives
