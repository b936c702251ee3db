"""A recode of one large object is killed in its middle, beside a running server: it goes on where it was."""

import subprocess
import time
from contextlib import suppress
from random import Random

import pytest

from holdfast.cli.catalogue import PIECE_BYTES
from holdfast.core.limits import MIB
from holdfast.testing.server import Server
from tests.integration.conftest import StartServer
from tests.integration.operator import HOLDFAST, Objects, command

SIZE_BYTES = 3 * PIECE_BYTES + 5 * MIB

# Beside other tests, on a slow disk.
PIECES_MAX_SECONDS = 300.0


def used(server: Server) -> int:
    """Bytes in the drives' segments; one that goes meanwhile counts nothing."""
    total = 0
    for path in [path for drive in server.directories for path in drive.glob("segments/*")]:
        with suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total


def recode_and_kill(server: Server, more_bytes: int) -> None:
    """End the command with kill -9 once so much more lies on the drives."""
    before = used(server)
    deadline = time.monotonic() + PIECES_MAX_SECONDS
    work = subprocess.Popen(
        [*server.inside, HOLDFAST, "recode", "--copies", "2", *server.directories],
        env=server.environment(),
        stdout=subprocess.DEVNULL,
    )
    try:
        while work.poll() is None and used(server) < before + more_bytes:
            assert time.monotonic() < deadline, "nothing is written"
            time.sleep(0.02)
    finally:
        work.kill()
        work.wait()


@pytest.mark.soak
def test_a_recode_that_is_killed_goes_on(start_server: StartServer) -> None:
    server = start_server(4)
    objects = Objects(server)
    objects.s3.put_object(Bucket=objects.bucket, Key="large", Body=(body := Random(1).randbytes(SIZE_BYTES)))
    objects.kept["large"] = body
    # Each byte is kept twice, so the first of two pieces was committed by then.
    recode_and_kill(server, 4 * PIECE_BYTES)
    objects.check()
    # The server may have gone on with it meanwhile.
    said = command(server, "recode", "--copies", "2", "--json").well().document
    assert said["recoded_bytes"] <= SIZE_BYTES - PIECE_BYTES
    objects.check()
    command(server, "fsck", "--read").well()
    objects.s3.delete_object(Bucket=objects.bucket, Key="large")
    del objects.kept["large"]
    objects.check()
