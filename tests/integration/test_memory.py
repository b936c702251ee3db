"""Everything streams: many large uploads and downloads at once fit into a small memory.

Where cgroups can be made the server's processes live in one with a hard limit, and the kernel ends whoever exceeds it.
Elsewhere the sum of Pss_Anon and Pss_Shmem is sampled and held to the same limit; the test says which it was.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bench.figures import MemorySampler

from holdfast.core.limits import GIB, MIB
from holdfast.testing.s3_client import NoAnswer
from holdfast.testing.server import Server
from holdfast.testing.workload import make_body
from tests.integration.conftest import make_directories

LIMIT_BYTES = 400 * MIB
STREAMS_COUNT = 16

_V1 = Path("/sys/fs/cgroup/memory")
_V2 = Path("/sys/fs/cgroup")


@contextmanager
def memory_cgroup(limit_bytes: int) -> Iterator[Path | None]:
    """A new memory cgroup with that limit, or None where none can be made."""
    base, knob = (_V1, "memory.limit_in_bytes") if _V1.is_dir() else (_V2, "memory.max")
    group = base / f"holdfast-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / knob).write_text(str(limit_bytes))
    except OSError:
        if group.is_dir():
            group.rmdir()
        yield None
        return
    try:
        yield group
    finally:
        remove_cgroup(group)


def remove_cgroup(group: Path) -> None:
    """A group is busy until the last of its processes is really gone."""
    for _ in range(100):
        try:
            group.rmdir()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"{group} is not empty")


def stream_all(server: Server, size: int) -> list[str]:
    """Upload and then download as many objects as there are streams, all at once; what went wrong."""
    # Each body begins a little further on in the same bytes: all differ, and this process holds little more than one.
    pieces = range(size // MIB + STREAMS_COUNT)
    everything = memoryview(b"".join(make_body(number // 256, number % 256, MIB) for number in pieces))
    faults: list[str] = []

    def both(number: int) -> None:
        try:
            stream(number)
        except NoAnswer as error:
            faults.append(str(error))

    def stream(number: int) -> None:
        body = everything[number * MIB : number * MIB + size]
        with server.client(timeout_seconds=600) as s3:
            answer = s3.put("proof", f"large-{number}", body)
            if answer.status != 200:
                faults.append(f"upload {number}: {answer.status} {answer.body[:200]!r}")
                return
            # Range by range, so that this process does not hold what the server must not.
            for start in range(0, size, 64 * MIB):
                end = min(size, start + 64 * MIB)
                part = s3.get("proof", f"large-{number}", {"range": f"bytes={start}-{end - 1}"})
                if part.status != 206 or part.body != body[start:end]:
                    faults.append(f"download {number} from {start}: {part.status}, {len(part.body)} bytes")

    threads = [threading.Thread(target=both, args=(number,)) for number in range(STREAMS_COUNT)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return faults


def prove(home: Path, size: int) -> None:
    with memory_cgroup(LIMIT_BYTES) as group:
        # The shell enters the group and becomes the server, so every process of it is inside from its first byte.
        inside = ("/bin/sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh") if group else ()
        print(f"\nlimit held by {'a cgroup' if group else 'sampling (no cgroup could be made)'}")
        server = Server(make_directories(home, 6), home / "log", workers=1, inside=inside)
        with server:
            before = set(server.processes())
            with server.client() as s3:
                assert s3.make_bucket("proof").status == 200
            with MemorySampler(server.pid) as memory:
                faults = stream_all(server, size)
            print(f"peak {memory.peak_bytes / MIB:.0f} MiB of {LIMIT_BYTES / MIB:.0f}")
            assert faults == []
            assert set(server.processes()) == before, "a process died and was started again"
            assert memory.peak_bytes <= LIMIT_BYTES


@pytest.mark.slow
def test_sixteen_streams_in_little_memory(tmp_path: Path) -> None:
    prove(tmp_path, 16 * MIB)


@pytest.mark.alone
@pytest.mark.soak
def test_sixteen_streams_of_a_gibibyte_in_little_memory(tmp_path: Path) -> None:
    prove(tmp_path, GIB)
