"""`python -m bench.fill --keys N DIR...`: keys that no row reads, put into the bucket of a load whose server runs.

Every second key has an older version. It opens the store itself, as any process may, since a request for each of a
million keys would take a quarter of an hour; what is written is what a PUT of as many bytes writes.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from time import perf_counter

from bench.rows import BUCKET
from holdfast.cli.opening import open_store
from holdfast.cli.settings import load
from holdfast.objects.model import PutOptions, Versioning
from holdfast.objects.store import Store

# As many as fit a few commits of the metadata at once.
PUTS_AT_ONCE_COUNT = 512

KEYS_PER_FOLDER_COUNT = 1000


def names(count: int) -> list[str]:
    """Keys in an order that no client would choose: pages of the tree are filled all over."""
    numbers = list(range(count))
    Random(1).shuffle(numbers)
    return [f"ballast/{number // KEYS_PER_FOLDER_COUNT:05}/{number:08}" for number in numbers]


async def fill(store: Store, count: int, size: int) -> None:
    """Put `count` keys of `size` bytes, every second one twice."""
    await store.set_versioning(BUCKET, Versioning.ENABLED)
    body = Random(2).randbytes(size)
    keys = names(count)
    began = perf_counter()
    for turn in (keys, keys[::2]):
        waiting = iter(turn)
        await asyncio.gather(*(_put_each(store, waiting, body) for _ in range(PUTS_AT_ONCE_COUNT)))
    seconds = perf_counter() - began
    print(f"{count} keys and {len(keys[::2])} older versions of {size} bytes in {seconds:.0f} s", file=sys.stderr)


async def _put_each(store: Store, keys: Iterator[str], body: bytes) -> None:
    for key in keys:
        await store.put_object(BUCKET, key, body, PutOptions())


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, required=True)
    parser.add_argument("--size", type=int, default=0, help="of each object, bytes")
    parser.add_argument("--run-dir", default=None, help="that of the server")
    parser.add_argument("directories", nargs="+", type=Path)
    arguments = parser.parse_args()
    given = {"run-dir": arguments.run_dir}
    async with open_store(load(tuple(arguments.directories), given, {}, None)) as opened:
        await fill(opened.store, arguments.keys, arguments.size)


if __name__ == "__main__":
    asyncio.run(_main())
