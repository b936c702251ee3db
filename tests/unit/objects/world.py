"""A store in memory for tests: metadata, drives and cluster are the real rooms over things that keep no file."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from holdfast.cli.catalogue import RowCatalogue
from holdfast.cluster import Cluster
from holdfast.core.ids import Buffer, DriveId, StoreId
from holdfast.core.limits import MIB
from holdfast.core.ranges import prefix_range
from holdfast.crypto.keyring import Purpose, new_keyring
from holdfast.drives.memory import MemoryDrive
from holdfast.erasure import Code, erasure
from holdfast.meta.interface import Row
from holdfast.meta.memory import MemoryMeta
from holdfast.meta.sealed import RowKeys, SealedMeta
from holdfast.objects.contents import ContentKeys, Contents
from holdfast.objects.layouts import Layouts
from holdfast.objects.rows import CONTENTS, ContentRow
from holdfast.objects.sessions import Sessions
from holdfast.objects.store import Store, StoreParts
from holdfast.placement import LayoutDrive, first_layout
from holdfast.testing.clock import FakeClock, SeededRandomness
from holdfast.tree import SealingThreads

T = TypeVar("T")

_RUNNER = asyncio.Runner()
_THREADS = ThreadPoolExecutor(2)


def run(work: Coroutine[Any, Any, T]) -> T:
    """For state machines, whose rules are not coroutines: one loop for the whole test session."""
    return _RUNNER.run(work)


async def collect(chunks: AsyncIterator[Buffer]) -> bytes:
    return b"".join([bytes(chunk) async for chunk in chunks])


class World:
    """A store over memory drives, in which a bucket named "bucket" is made by `open`."""

    def __init__(self, *, drives: int = 6, code: Code | None = None) -> None:
        self.clock = FakeClock()
        self.randomness = SeededRandomness(7)
        keyring = new_keyring(StoreId(bytes(16)), self.randomness)
        self.rows = MemoryMeta()
        self.meta = SealedMeta(self.rows, RowKeys.of(keyring, self.randomness))
        self.drives = {DriveId(bytes([n]) * 16): MemoryDrive(DriveId(bytes([n]) * 16)) for n in range(1, drives + 1)}
        self.layout = first_layout(LayoutDrive(drive, 1 << 40, "node") for drive in self.drives)
        self.layouts = Layouts(self.meta, self.randomness)
        self.cluster = Cluster(self.drives, clock=self.clock)
        self.cluster.use([self.layout])
        self.sessions = Sessions(self.meta, self.clock, self.randomness, host="host", process=1)
        self.tags = keyring.tag_sealer(self.randomness)
        keys = ContentKeys(
            keyring.sealer(Purpose.READ, self.randomness),
            keyring.opener(Purpose.READ),
            keyring.sealer(Purpose.WALK, self.randomness),
            keyring.opener(Purpose.WALK),
            self.tags,
        )
        self.contents = Contents(
            self.meta,
            self.cluster,
            self.layouts,
            self.sessions,
            keys,
            SealingThreads(_THREADS, self.randomness),
            code or erasure(4, 2),
            self.clock,
        )
        self.store = Store(
            StoreParts(self.meta, self.contents, self.sessions, self.clock, self.randomness, _THREADS, MIB)
        )

    @classmethod
    async def open(cls, *, drives: int = 6, code: Code | None = None) -> "World":
        world = cls(drives=drives, code=code)
        await world.layouts.publish(world.layout)
        await world.layouts.live()
        await world.store.create_bucket("bucket")
        return world

    async def collect_garbage(self) -> None:
        """Forget what is condemned, as upkeep does once its fragments are gone."""
        catalogue = RowCatalogue(self.meta, self.contents, self.tags, self.clock, self.randomness)
        while found := await catalogue.condemned(self.clock.now_ns() + 1):
            for condemned in found:
                await catalogue.forget(condemned.content)

    async def live_contents(self) -> int:
        """Contents that something refers to."""
        page = await self.meta.scan(prefix_range(CONTENTS), limit=1000)
        rows = [ContentRow.decode(entry.value) for entry in page.entries if isinstance(entry, Row)]
        return sum(row.refs > 0 for row in rows)

    async def close(self) -> None:
        await self.sessions.close()
