"""A process that works on a drive until it is killed, and says on stdout what was acknowledged.

    python -m tests.unit.drives.worker DIRECTORY SEED KEYS ROUNDS

Lines: "begin put N TAG", "done put N TAG", "begin delete N", "done delete N"; "ready" first, "end" at the end.
"""

import asyncio
import os
import sys
from pathlib import Path
from random import Random

from holdfast.drives.directory import open_drive
from holdfast.drives.os_disk import OsDisk
from holdfast.testing.drive_suite import key_of, make_fragment
from tests.unit.drives.opened import SMALL, STORE


class SystemRandomness:
    """Two processes must not draw the same segment ids."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


def say(*words: object) -> None:
    # One write, so that a kill leaves whole lines.
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def work(directory: Path, seed: int, keys: int, rounds: int) -> None:
    drive = await open_drive(directory, disk=OsDisk(), randomness=SystemRandomness(), store=STORE, sizes=SMALL)
    random = Random(seed)
    say("ready")

    async def lane(first: int) -> None:
        # Each lane has keys of its own, so that what was acknowledged last is known.
        for turn in range(rounds):
            number = seed * 10_000 + first * keys + random.randrange(keys)
            if random.random() < 0.65:
                say("begin put", number, turn)
                size = random.choice((100, 5000, 40_000))
                await drive.put(
                    [make_fragment(number, 5000 + number % 7, tag=b"%d" % turn), make_fragment(1 << 30, size)]
                )
                say("done put", number, turn)
            else:
                say("begin delete", number)
                await drive.delete([key_of(number)])
                say("done delete", number)
            if random.random() < 0.05:
                await drive.compact(budget_bytes=100_000, wasted_share=0.1)

    await asyncio.gather(*(lane(first) for first in range(4)))
    say("end")
    await drive.close()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), *map(int, sys.argv[2:5])))
