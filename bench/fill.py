"""`python -m bench.fill --keys N DIR...`: keys that no row reads, put into the bucket of a load whose server runs.

Every second key has an older version. The store is opened by as many processes as there are cores, as any may, and
put to in batches, since a request for each of ten million keys would take hours; what is written is what a PUT of as
many bytes writes.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from random import Random
from time import perf_counter

from bench.rows import BUCKET
from holdfast.cli.opening import open_store
from holdfast.cli.settings import load
from holdfast.core.errors import HoldfastError
from holdfast.objects.model import NewObject, Versioning
from holdfast.objects.publish import PUT_BATCH_MAX_COUNT
from holdfast.objects.store import Store

# While one batch is made durable the next is made ready.
BATCHES_AT_ONCE_COUNT = 4

KEYS_PER_FOLDER_COUNT = 1000


@dataclass(frozen=True, slots=True)
class Share:
    """What one process puts."""

    directories: Sequence[Path]
    run_directory: str | None
    keys_count: int
    """Of all processes together."""
    folders: range
    size: int


def numbers(share: Share, step: int) -> Iterator[int]:
    """Of every `step`-th key, folders and the keys in each in any order: pages of the tree are filled all over.

    Not all keys in any order: then each commit would write as many pages of the view as it has rows, and while a
    checkpoint is read none of them is used again. Ten million keys would need twice the disk.
    """
    random = Random(share.folders.start)
    for folder in random.sample(share.folders, len(share.folders)):
        first = folder * KEYS_PER_FOLDER_COUNT
        keys = range(first, min(first + KEYS_PER_FOLDER_COUNT, share.keys_count), step)
        yield from random.sample(keys, len(keys))


def name(number: int) -> str:
    return f"ballast/{number // KEYS_PER_FOLDER_COUNT:05}/{number:08}"


async def put_all(store: Store, numbers: Iterator[int], body: bytes) -> None:
    while batch := [NewObject(name(number), body) for number in islice(numbers, PUT_BATCH_MAX_COUNT)]:
        for made in await store.put_objects(BUCKET, batch):
            if isinstance(made, HoldfastError):
                raise made


async def fill(share: Share) -> None:
    """Put a share's keys, then every second one again."""
    body = Random(2).randbytes(share.size)
    async with open_store(load(tuple(share.directories), {"run-dir": share.run_directory}, {}, None)) as opened:
        for waiting in (numbers(share, 1), numbers(share, 2)):
            await asyncio.gather(*(put_all(opened.store, waiting, body) for _ in range(BATCHES_AT_ONCE_COUNT)))


def fill_share(share: Share) -> None:
    """In a process of its own."""
    asyncio.run(fill(share))


async def keep_versions(share: Share) -> None:
    async with open_store(load(tuple(share.directories), {"run-dir": share.run_directory}, {}, None)) as opened:
        await opened.store.set_versioning(BUCKET, Versioning.ENABLED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--size", type=int, default=0, help="of each object, bytes")
    parser.add_argument("--run-dir", default=None, help="that of the server")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("directories", nargs="+", type=Path)
    given = parser.parse_args()
    folders = -(-given.keys // KEYS_PER_FOLDER_COUNT)
    shares = [
        Share(given.directories, given.run_dir, given.keys, range(first, folders, given.processes), given.size)
        for first in range(given.processes)
    ]
    asyncio.run(keep_versions(shares[0]))
    began = perf_counter()
    with ProcessPoolExecutor(given.processes, get_context("spawn")) as processes:
        list(processes.map(fill_share, shares))
    older = -(-given.keys // 2)
    seconds = perf_counter() - began
    print(f"{given.keys} keys and {older} older versions of {given.size} bytes in {seconds:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
