"""`python -m tests.simulation.upkeep_scenario PHASE TRACE DIR...`: what upkeep does to a store's files, to be recorded.

Phase "fill" makes a store and fills it. Phase "tidy" deletes, overwrites and copies, collects what is condemned without
any grace, compacts every drive down to what lives, moves the metadata to a checkpoint, and writes on. Phase "mend" is
run when the first of the drives that were filled is gone, and with an empty directory behind the others: that takes the
place of the lost one, everything is repaired, and written to meanwhile. Each change is marked in the trace before it
begins and when it is done, as the clients of the other proof do.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable
from hashlib import md5
from pathlib import Path

import msgspec

from holdfast.cli.drives import replace_lost
from holdfast.cli.opening import OpenStore, find_or_make, open_store
from holdfast.cli.output import Output
from holdfast.cli.repair import repair
from holdfast.cli.settings import load
from holdfast.cli.system import SystemClock, SystemRandomness
from holdfast.cli.upkeep import chores_of
from holdfast.core.limits import KIB, MIB
from holdfast.drives.os_disk import OsDisk
from holdfast.objects.model import CopyOptions, CopySource, PutOptions
from holdfast.testing.histories import Action, Operation, Outcome
from holdfast.testing.power_cut import Marker
from holdfast.testing.workload import make_body
from holdfast.upkeep.collect import Collector
from holdfast.upkeep.worker import settle

BUCKET = "proof"
KEYS = tuple(f"key-{number}" for number in range(10))
BODY_BYTES = 300 * KIB


class Changes:
    """Changes one at a time, marked."""

    def __init__(self, opened: OpenStore, marker: Marker, client: int) -> None:
        self._store = opened.store
        self._marker = marker
        self._client = client
        self._serial = 0
        self._values: dict[str, str] = {}

    async def put(self, key: str) -> None:
        body = make_body(self._client, self._serial, BODY_BYTES)
        value = self._values[key] = md5(body, usedforsecurity=False).hexdigest()
        await self._marked(key, value, self._store.put_object(BUCKET, key, body, PutOptions()))

    async def copy(self, source: str, key: str) -> None:
        """From a key that was put by the same hand."""
        value = self._values[key] = self._values[source]
        await self._marked(key, value, self._store.copy_object(CopySource(BUCKET, source), BUCKET, key, CopyOptions()))

    async def delete(self, key: str) -> None:
        await self._marked(key, None, self._store.delete_object(BUCKET, key))

    async def _marked(self, key: str, value: str | None, change: Awaitable[object]) -> None:
        self._serial += 1
        operation = Operation(self._client, key, Action.WRITE, 0, 0, value, Outcome.DONE)
        mark = {"client": self._client, "serial": self._serial, "ended": False, "operation": operation}
        self._marker.mark(msgspec.json.encode(mark))
        await change
        self._marker.mark(msgspec.json.encode({**mark, "ended": True}))


async def fill(opened: OpenStore, marker: Marker) -> None:
    await opened.store.create_bucket(BUCKET)
    changes = Changes(opened, marker, 0)
    for key in KEYS:
        await changes.put(key)


async def tidy(opened: OpenStore, marker: Marker) -> None:
    changes = Changes(opened, marker, 1)
    for key in KEYS[:4]:
        await changes.delete(key)
    for key in KEYS[4:7]:
        await changes.put(key)
    await changes.copy(KEYS[4], KEYS[0])
    await changes.copy(KEYS[5], KEYS[6])
    await changes.delete(KEYS[4])
    await changes.put(KEYS[5])
    await collect(opened)
    freed = 0
    for drive in opened.drives.values():
        while (step := await drive.compact(budget_bytes=MIB, wasted_share=0.01)).moved_bytes or step.freed_bytes:
            freed += step.freed_bytes
    assert freed, "nothing was compacted: the scenario does not do what it is for"
    await opened.local.checkpoint()
    for key in KEYS[1:3]:
        await changes.put(key)


async def collect(opened: OpenStore) -> None:
    """Everything that is condemned, without any grace."""
    chores = chores_of(opened)
    collector = Collector(chores.catalogue, opened.drives, chores.layouts, opened.clock, 0.0)
    await settle(collector)


async def mend(opened: OpenStore, marker: Marker) -> None:
    changes = Changes(opened, marker, 2)
    await changes.put(KEYS[0])
    await replace_missing(opened, opened.settings.drives[-1])
    await changes.put(KEYS[1])
    await changes.delete(KEYS[2])
    assert await repair(opened, Output(as_json=False)), "not everything was repaired"
    held = [await drive.usage() for drive in opened.drives.values() if drive.directory == opened.settings.drives[-1]]
    assert [usage.fragments > 0 for usage in held] == [True], "the new drive holds nothing: nothing was repaired"
    await changes.put(KEYS[2])


async def replace_missing(opened: OpenStore, new: Path) -> None:
    """Give the seat of the one drive that is missing, if one is, to `new`."""
    for entry in opened.layout.active:
        if entry.id not in opened.drives:
            assert await replace_lost(opened, Output(as_json=False), entry.id.hex(), new, force=False)


PHASES = {"fill": fill, "tidy": tidy, "mend": mend}


async def run(phase: str, trace: Path, directories: list[Path]) -> None:
    settings = load(tuple(directories), {}, os.environ, None)
    await asyncio.to_thread(find_or_make, settings, OsDisk(), SystemRandomness(), SystemClock())
    marker = Marker(trace)
    async with open_store(settings) as opened:
        await PHASES[phase](opened, marker)
    marker.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], Path(sys.argv[2]), [Path(argument) for argument in sys.argv[3:]]))
