"""What the tests of real clients share: a server with a bucket of 10,000 keys, a tree of files, and URLs for anyone."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import urllib3

from holdfast.cli.opening import open_store
from holdfast.cli.settings import load
from holdfast.core.limits import MIB
from holdfast.objects.model import PutOptions
from holdfast.testing.server import ACCESS_KEY, SECRET_KEY, Server
from tests.integration.conftest import make_directories

FULL_BUCKET = "full"
FULL_COUNT = 10_000
FULL_KEYS = [f"year={2000 + number % 5}/{number:05d}" for number in range(FULL_COUNT)]

# As many puts at a time as one group commit takes well.
_FILL_CONCURRENCY = 250

COMMAND_MAX_SECONDS = 300

# Above the size at which each of the clients begins to upload in parts, when it is told to do so from 5 MiB on.
LARGE_BYTES = 11 * MIB + 1


@dataclass(frozen=True)
class Site:
    """A running server, as a client must be told of it."""

    server: Server
    home: Path

    @property
    def endpoint(self) -> str:
        return self.server.endpoint

    def environment(self) -> dict[str, str]:
        """For commands: nothing of whoever runs the tests, and where the server is."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL": self.endpoint,
            "S3_ENDPOINT_URL": self.endpoint,
        }

    def run(self, name: str, *arguments: object) -> str:
        """A command of the virtual environment; what it printed. It must end well."""
        done = subprocess.run(
            [Path(sys.executable).with_name(name), *map(str, arguments)],
            env=self.environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=COMMAND_MAX_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, (
            f"{name} {arguments}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        return done.stdout


@contextmanager
def running(folder: Path) -> Iterator[Site]:
    """A server over one drive, with the full bucket in it. Syncs are left out: they are other tests' matter."""
    (folder / "home").mkdir()
    directories = make_directories(folder, 1)
    with Server(directories, folder / "log", options=("--sync", "relaxed")) as server:
        asyncio.run(_fill(server))
        yield Site(server, folder / "home")


async def _fill(server: Server) -> None:
    """As one more process of the store, which is what commands are, and quicker than requests."""
    environment = {"HOLDFAST_RUN_DIR": str(server.run_directory), "HOLDFAST_SYNC": "relaxed"}
    async with open_store(load(server.directories, {}, environment, None)) as opened:
        await opened.store.create_bucket(FULL_BUCKET)
        for start in range(0, FULL_COUNT, _FILL_CONCURRENCY):
            keys = FULL_KEYS[start : start + _FILL_CONCURRENCY]
            await asyncio.gather(
                *(opened.store.put_object(FULL_BUCKET, key, key.encode(), PutOptions()) for key in keys)
            )


def make_tree(root: Path) -> Path:
    """Files as people have them: names, depths and sizes."""
    random = Random(11)
    files = {
        "readme.txt": 100,
        "empty": 0,
        "photos/2024/ä picture.jpg": 70_000,
        "photos/2025/a+b & c=d #1%.jpg": 300_000,
        "deep/er/and/deeper/file.bin": 1,
        "large.bin": LARGE_BYTES,
    }
    for name, size in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.randbytes(size))
    return root


def contents(root: Path) -> dict[str, str]:
    """Each file below `root`, and a hash of it."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def fetch(url: str) -> tuple[int, bytes]:
    """As somebody who has nothing but the URL."""
    answer = urllib3.request("GET", url, retries=False)
    return answer.status, answer.data
