"""Millions of small objects over four blob servers: uploaded through the API server, replicated, counted, read back.

SOS_OBJECTS=20000 python -m pytest -s -m soak tests/integration/test_sos_load.py
"""

import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from random import Random

import pytest
from bench.loop import Request, run_loop

from tests.integration.sos_processes import Sos, request, sos

OBJECTS_COUNT = int(os.environ.get("SOS_OBJECTS", "2000000"))
CONNECTIONS_COUNT = 64
SAMPLE_COUNT = 2000
SERVERS_COUNT = 4


def body(number: int) -> bytes:
    """100 to 1,100 bytes, another for each number."""
    text = hashlib.sha256(b"%d" % number).digest() * 36
    return text[: 100 + number % 1000]


def uploads(host: str, count: int, connection: int) -> Iterator[Request]:
    """One connection's share. Every answer is compared."""
    for number in range(connection, count, CONNECTIONS_COUNT):
        data = body(number)
        stored = b'{"id":"%s","size":%d,"status":"OK"}' % (hashlib.sha1(data).hexdigest().encode(), len(data))
        head = b"POST /upload HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n" % (host.encode(), len(data))
        yield Request([head + data], expected=partial(bytes, stored))


def upload_all(made: Sos, count: int) -> None:
    address = ("127.0.0.1", made.upload_port)
    sources = [uploads(f"127.0.0.1:{made.upload_port}", count, connection) for connection in range(CONNECTIONS_COUNT)]
    tally = run_loop(address, sources, 0, math.inf)
    assert (tally.failures, tally.verified) == (0, count), tally.errors


def prove(home: Path, count: int) -> None:
    with sos(home, [f"data{number}" for number in range(SERVERS_COUNT)]) as made:
        began = time.monotonic()
        upload_all(made, count)
        print(f"\n{count} uploads: {count / (time.monotonic() - began):.0f} a second")

        began = time.monotonic()
        done = made.replicate("-min-copies", "2", timeout_seconds=count / 10 + 100)
        assert done.returncode == 0, done.stdout
        print(f"{count} objects to two servers each: {count / (time.monotonic() - began):.0f} a second")
        began = time.monotonic()
        assert made.replicate("-v", timeout_seconds=count / 10 + 100).returncode == 0
        print(f"once more, nothing to do: {time.monotonic() - began:.1f} s")

        began = time.monotonic()
        counts = [len(re.findall(rb'"[0-9a-f]{40}"', made.blobs(number))) for number in range(SERVERS_COUNT)]
        print(f"objects on each server {counts}, listed in {time.monotonic() - began:.1f} s")
        assert sum(counts) == 2 * count

        made.blob_servers[0].kill()
        sample = Random(1).sample(range(count), min(SAMPLE_COUNT, count))
        began = time.monotonic()
        for number in sample:
            data = body(number)
            assert made.fetch(hashlib.sha1(data).hexdigest()) == data
        print(f"with one server dead, {len(sample)} downloads one by one: "
              f"{len(sample) / (time.monotonic() - began):.0f} a second")  # fmt: skip
        assert json.loads(request("GET", f"{made.urls[1]}/blobs"))


def test_sixty_objects(tmp_path: Path) -> None:
    prove(tmp_path, 60)


@pytest.mark.alone
@pytest.mark.soak
def test_two_million_objects(tmp_path: Path) -> None:
    prove(tmp_path, OBJECTS_COUNT)
