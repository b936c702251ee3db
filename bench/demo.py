"""`make demo`: what a store is for, shown on real files, and checked to the last byte.

Six drives. Every file of this machine's Python library and one object of 1 GiB go in through boto3. While the large
one is read back, two drives are wiped; the store is restarted; everything is read again. Then the drives are replaced,
repaired and scrubbed, and everything is read once more. At the end a table says what was done and how long it took.
Exits with a status other than zero if a byte differs.
"""

import hashlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from rich.console import Console
from rich.table import Table

from holdfast.testing.server import ACCESS_KEY, SECRET_KEY, Server

GIB = 1 << 30
MIB = 1 << 20
CHUNK_BYTES = 4 * MIB
THREADS = 8
LARGE_KEY = "one object of 1 GiB"
BUCKET = "demo"


class Log:
    """What was done, how much, and how long it took."""

    def __init__(self) -> None:
        self.console = Console()
        self.rows: list[tuple[str, str, float, str]] = []

    @contextmanager
    def step(self, what: str, *, size: int = 0, count: int = 0) -> Iterator[None]:
        self.console.print(f"{what} ...", end=" ", highlight=False)
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        amount = ", ".join(
            part for part in (f"{count:,} objects" if count else "", f"{size / MIB:,.0f} MiB" if size else "") if part
        )
        speed = f"{size / MIB / seconds:,.0f} MiB/s" if size else ""
        self.rows.append((what, amount, seconds, speed))
        self.console.print(f"{seconds:.1f} s", highlight=False)

    def table(self) -> Table:
        table = Table("what", "how much", "seconds", "speed", title="Holdfast demo")
        for what, amount, seconds, speed in self.rows:
            table.add_row(what, amount, f"{seconds:.1f}", speed)
        return table


class LargeBody:
    """1 GiB that need not be kept: each 4 MiB is the SHA-256 of its number, repeated and mixed. Readable once."""

    def __init__(self, size: int = GIB) -> None:
        self.size = size
        self.position = 0

    @staticmethod
    def chunk(number: int) -> bytes:
        return hashlib.shake_128(number.to_bytes(8, "big")).digest(CHUNK_BYTES)

    def read(self, length: int = -1) -> bytes:
        wanted = self.size - self.position if length < 0 else min(length, self.size - self.position)
        parts: list[bytes] = []
        while wanted > 0:
            number, offset = divmod(self.position, CHUNK_BYTES)
            part = self.chunk(number)[offset : offset + wanted]
            parts.append(part)
            self.position += len(part)
            wanted -= len(part)
        return b"".join(parts)


class Store:
    """The store under demonstration, with what should be in it."""

    def __init__(self, server: Server, log: Log) -> None:
        self.server = server
        self.log = log
        self.files = library_files()
        self.size = sum(path.stat().st_size for path in self.files.values())

    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.server.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(max_pool_connections=THREADS * 2, retries={"max_attempts": 5, "mode": "standard"}),
        )

    def upload(self) -> None:
        client = self.client()
        client.create_bucket(Bucket=BUCKET)
        with (
            self.log.step("put this machine's Python library", size=self.size, count=len(self.files)),
            ThreadPoolExecutor(THREADS) as pool,
        ):
            list(pool.map(lambda item: client.put_object(Bucket=BUCKET, Key=item[0], Body=item[1].read_bytes()),
                          self.files.items()))  # fmt: skip
        with self.log.step("put one object of 1 GiB", size=GIB):
            put_large(client)

    def check_files(self, when: str) -> None:
        client = self.client()

        def differs(item: tuple[str, Path]) -> bool:
            return bool(client.get_object(Bucket=BUCKET, Key=item[0])["Body"].read() != item[1].read_bytes())

        with (
            self.log.step(f"read the library back, {when}", size=self.size, count=len(self.files)),
            ThreadPoolExecutor(THREADS) as pool,
        ):
            if any(pool.map(differs, self.files.items())):
                raise Differs(f"a file differs, {when}")

    def check_large(self, when: str, *, at_half: Callable[[], None] | None = None) -> None:
        with self.log.step(f"read 1 GiB back, {when}", size=GIB):
            body = self.client().get_object(Bucket=BUCKET, Key=LARGE_KEY)["Body"]
            for number in range(GIB // CHUNK_BYTES):
                if at_half is not None and number == GIB // CHUNK_BYTES // 2:
                    at_half()
                if body.read(CHUNK_BYTES) != LargeBody.chunk(number):
                    raise Differs(f"the large object differs at {number * CHUNK_BYTES}, {when}")

    def run(self, what: str, *arguments: str, well: bool = True) -> None:
        """A command of ours on the live store; `well` when it should find nothing wrong."""
        command = [sys.executable, "-m", "holdfast.cli.main", *arguments]
        with self.log.step(what):
            done = subprocess.run(command, env=self.server.environment(), capture_output=True, text=True, check=False)
        if done.returncode != (0 if well else 1):
            raise Differs(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        for line in done.stdout.splitlines():
            self.log.console.print(f"    {line}", highlight=False, markup=False)


class Differs(Exception):
    """Something is not as it was put."""


def library_files() -> dict[str, Path]:
    root = Path(sysconfig.get_paths()["stdlib"])
    found = {str(path.relative_to(root)): path for path in root.rglob("*") if path.is_file() and not path.is_symlink()}
    # What was installed besides is another tree, and may be ten times as large.
    return {key: path for key, path in found.items() if not {"__pycache__", "site-packages"} & set(Path(key).parts)}


def put_large(client: Any) -> None:
    settings = TransferConfig(multipart_chunksize=64 * MIB, max_concurrency=2, multipart_threshold=64 * MIB)
    client.upload_fileobj(LargeBody(), BUCKET, LARGE_KEY, Config=settings)


def wipe(*drives: Path) -> None:
    for drive in drives:
        for entry in drive.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def lose_two_drives(root: Path, log: Log) -> None:
    drives = [root / f"drive{number}" for number in range(1, 7)]
    server = Server(drives, root / "server.log")
    with server:
        store = Store(server, log)
        store.upload()
        lost = drives[1], drives[4]
        store.check_large("two drives wiped half-way", at_half=partial(wipe, *lost))
        store.check_files("two drives gone")
        with log.step("restart"):
            server.stop()
            server.start()
        store.check_large("restarted, two drives gone")
        store.check_files("restarted, two drives gone")
        names = [str(drive) for drive in drives]
        store.run("status, two drives gone", "status", *names, well=False)
        for number, drive in enumerate(lost, start=7):
            new = root / f"drive{number}"
            store.run(f"replace {drive.name} by {new.name}", "drive", "replace", *names, str(drive), str(new))
            names[names.index(str(drive))] = str(new)
        store.run("repair", "repair", *names)
        store.run("scrub", "scrub", *names)
        store.run("fsck", "fsck", *names)
        store.check_large("repaired")
        store.check_files("repaired")
        store.run("status, repaired", "status", *names)


def one_gib_at_4_3(root: Path, log: Log) -> None:
    drives = [root / f"seven{number}" for number in range(1, 8)]
    with Server(drives, root / "seven.log", options=["--code", "4+3"]) as server:
        store = Store(server, log)
        client = store.client()
        client.create_bucket(Bucket=BUCKET)
        with log.step("put 1 GiB at 4+3 over seven drives", size=GIB):
            put_large(client)
        store.check_large("at 4+3")


def main() -> int:
    log = Log()
    with tempfile.TemporaryDirectory(prefix="holdfast-demo-") as directory:
        try:
            lose_two_drives(Path(directory), log)
            one_gib_at_4_3(Path(directory), log)
        except Differs as error:
            log.console.print(f"\n{error}", style="red", highlight=False, markup=False)
            return 1
        finally:
            log.console.print(log.table())
    log.console.print("Every byte came back as it was put.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
