"""The disks are full, under a real server: it says so, goes on with all that needs no space, and recovers by itself.

Small file systems of the test's own (tmpfs in a mount namespace, so no root is needed) hold everything that a drive
holds: segments, index, reserve, the metadata's log, view and checkpoints. They are filled through S3 from several
connections until nothing of any size is taken any more.
"""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.core.limits import KIB, MIB
from holdfast.testing.mounts import Mounts, NoNamespaces
from holdfast.testing.s3_client import Answer
from holdfast.testing.server import Server
from holdfast.testing.workload import make_body
from tests.integration.conftest import make_directories
from tests.integration.operator import command

BUCKET = "proof"

# From what fills fast to what still fits into the last gaps: several blocks, one, a small one, a row.
SIZES_BYTES = (3 * MIB, 700 * KIB, 40 * KIB, 7 * KIB)

WRITERS_COUNT = 3

# So many refusals in a row mean that this size is not taken any more.
REFUSALS_COUNT = 4

# What deletes gave up is collected and compacted by then.
SPACE_BACK_MAX_SECONDS = 60.0


@contextmanager
def small_disks(home: Path, count: int, size_bytes: int) -> Iterator[Server]:
    """A running server over so many small file systems."""
    try:
        with Mounts(home) as mounts:
            directories = make_directories(home / "store", count)
            for number, directory in enumerate(directories):
                mounts.make_disk(str(number), size_bytes)
                mounts.insert(str(number), directory)
            with Server(directories, home / "log", inside=mounts.prefix) as server:
                yield server
    except NoNamespaces as error:
        pytest.skip(f"not run: full disks. {error}")


class Filler:
    """Puts objects until they are refused, and knows what was acknowledged."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.kept: dict[str, bytes] = {}
        self.refusals: set[tuple[int, str]] = set()

    def fill(self) -> None:
        """From several connections at once, until nothing is taken any more."""
        threads = [threading.Thread(target=self._fill, args=(number,)) for number in range(WRITERS_COUNT)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _fill(self, writer: int) -> None:
        with self.server.client() as s3:
            serial = 0
            for size in SIZES_BYTES:
                refused = 0
                while refused < REFUSALS_COUNT:
                    serial += 1
                    key, body = f"{writer}-{serial:05}-{size}", make_body(writer, serial, size)
                    answer = s3.put(BUCKET, key, body)
                    refused = 0 if self.note(key, body, answer) else refused + 1

    def note(self, key: str, body: bytes, answer: Answer) -> bool:
        """Whether it was acknowledged."""
        if answer.status == 200:
            self.kept[key] = body
            return True
        self.refusals.add((answer.status, error_code(answer)))
        return False

    def check(self) -> None:
        """What was acknowledged is listed and nothing else is; all of the large and a fifth of the small is read."""
        with self.server.client() as s3:
            assert s3.list_all(BUCKET).keys() == self.kept.keys()
            for number, (key, body) in enumerate(sorted(self.kept.items())):
                if number % 5 == 0 or len(body) > MIB:
                    answer = s3.get(BUCKET, key)
                    assert (answer.status, answer.body == body) == (200, True), key
                    head = s3.head(BUCKET, key)
                    assert (head.status, head.headers["content-length"]) == (200, str(len(body))), key

    def delete(self, share: int) -> None:
        """Every `share`-th object."""
        with self.server.client() as s3:
            for key in sorted(self.kept)[::share]:
                answer = s3.delete(BUCKET, key)
                assert answer.status == 204, (key, answer.status, answer.body)
                del self.kept[key]


def error_code(answer: Answer) -> str:
    found = re.search(rb"<Code>(\w+)</Code>", answer.body)
    return found[1].decode() if found else ""


def wait_for_space(filler: Filler) -> float:
    """Until a large object is taken again; the seconds that took."""
    began = time.monotonic()
    with filler.server.client() as s3:
        for serial in range(10_000, 20_000):
            key, body = f"again-{serial}", make_body(9, serial, SIZES_BYTES[0])
            if filler.note(key, body, s3.put(BUCKET, key, body)):
                break
            assert time.monotonic() - began < SPACE_BACK_MAX_SECONDS, "no space came back"
            time.sleep(0.2)
    return time.monotonic() - began


def wait_sound(server: Server) -> None:
    """Until repair, which had to wait for space too, has left nothing for fsck to find."""
    deadline = time.monotonic() + SPACE_BACK_MAX_SECONDS
    while (said := command(server, "fsck", "--read")).status:
        assert time.monotonic() < deadline, said.out
        time.sleep(1.0)


def check_verdict(server: Server) -> None:
    """Verification has no room for what it compares the metadata with: that is said, and not taken for damage."""
    said = command(server, "fsck", "--read").out
    assert "view differed" not in said, said
    assert "Input/output error" not in said, said


@pytest.mark.parametrize(("drives", "size_bytes"), [(1, 128 * MIB), pytest.param(4, 96 * MIB, marks=pytest.mark.soak)])
def test_a_full_store(tmp_path: Path, drives: int, size_bytes: int) -> None:
    with small_disks(tmp_path, drives, size_bytes) as server:
        filler = Filler(server)
        with server.client() as s3:
            assert s3.make_bucket(BUCKET).status == 200
        filler.fill()
        print(f"\n{len(filler.kept)} objects, {sum(map(len, filler.kept.values())) / MIB:.0f} MiB; {filler.refusals}")
        assert filler.refusals == {(507, "InsufficientStorage")}
        filler.check()
        check_verdict(server)

        server.kill()
        server.start()
        filler.check()
        server.stop()
        server.start()
        filler.check()

        filler.delete(2)
        filler.check()
        print(f"space came back after {wait_for_space(filler):.1f} s")
        filler.delete(2)
        filler.check()
        wait_sound(server)
