"""Drives that misbehave when told to, and a cluster of them."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from threading import Event
from typing import Protocol, TypeVar

from blake3 import blake3
from msgspec.structs import replace

from holdfast.cluster import Cluster
from holdfast.cluster.heal import Healer
from holdfast.cluster.places import Places
from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, Full, HoldfastError
from holdfast.core.ids import BlockId, DriveId
from holdfast.core.ranges import ByteRange
from holdfast.drives.interface import DriveUsage, Fragment, FragmentInfo, FragmentKey, FragmentPart
from holdfast.drives.memory import MemoryDrive
from holdfast.erasure import BlockRef
from holdfast.placement import Layout, LayoutDrive, PartitionTable, first_layout, partition_table
from holdfast.testing.clock import FakeClock

T = TypeVar("T")


class InlineExecutor(Executor):
    """Runs what it is given at once, so that a test's time is all on its clock."""

    def submit(self, fn: Callable[..., T], /, *args: object, **kwargs: object) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  as any executor does
            future.set_exception(error)
        return future


def drive_id(number: int) -> DriveId:
    return DriveId(blake3(f"drive {number}".encode()).digest()[:16])


_tables: dict[tuple[bytes, int], PartitionTable] = {}


def known_table(layout: Layout, width: int) -> PartitionTable:
    """As `partition_table`, which takes most of a test's time, once for all tests: they use the same few layouts."""
    name = layout.hash, width
    if name not in _tables:
        _tables[name] = partition_table(layout, width)
    return _tables[name]


def layout_of(count: int) -> Layout:
    return first_layout(LayoutDrive(drive_id(i), 10**12, f"n{i}") for i in range(count))


class SharedDisk(Protocol):
    """What several drives lie on."""

    async def work(self) -> None:
        """One call's worth."""
        ...


class FakeDrive:
    """A memory drive that can be down, full, hang, answer late, and rot with or without noticing."""

    def __init__(self, id: DriveId, clock: Clock) -> None:
        self.memory = MemoryDrive(id)
        self.clock = clock
        self.error: type[HoldfastError] | None = None
        """Raised by every call."""
        self.is_full = False
        self.seconds = 0.0
        """Every call takes this long."""
        self.disk: SharedDisk | None = None
        """Every call has to wait for it."""
        self.rot: dict[FragmentKey, bool] = {}
        """Fragments whose bytes are wrong; True when the drive notices by its own checksum."""
        self.is_cached = False
        """Fragments are in memory: had without waiting."""
        self.gate: Event | None = None
        """A thread that may wait gets fragments once it is set; None for a drive that threads cannot read from."""
        self.reached = Event()
        """A thread came to the gate."""
        self.calls: list[str] = []
        self.running = 0

    @property
    def id(self) -> DriveId:
        return self.memory.id

    async def _enter(self, name: str) -> None:
        self.calls.append(name)
        self.running += 1
        try:
            if self.disk is not None:
                await self.disk.work()
            if self.seconds:
                await self.clock.sleep(self.seconds)
            else:
                await asyncio.sleep(0)
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error(f"{name} failed")

    async def put(self, fragments: Sequence[Fragment]) -> None:
        await self._enter("put")
        if self.is_full:
            raise Full("no space")
        for fragment in fragments:
            self.rot.pop(fragment.key, None)
        await self.memory.put(fragments)

    async def get(self, key: FragmentKey, range: ByteRange | None = None) -> FragmentPart:
        await self._enter("get")
        return self._spoiled(await self.memory.get(key, range))

    def get_at_once(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        if not self.is_cached or self.seconds:
            raise BlockingIOError
        return self._had("get_at_once", key, into)

    def get_here(self, key: FragmentKey, into: memoryview | None = None) -> FragmentPart:
        if self.gate is None:
            raise BlockingIOError
        self.reached.set()
        self.gate.wait()
        return self._had("get_here", key, into)

    def expect(self, key: FragmentKey) -> None:
        self.calls.append("expect")

    def _had(self, name: str, key: FragmentKey, into: memoryview | None) -> FragmentPart:
        """Read into its place, as a drive with a disk does."""
        self.calls.append(name)
        if self.error is not None:
            raise self.error(f"{name} failed")
        part = self._spoiled(self.memory.get_at_once(key))
        if into is None:
            return part
        assert len(into) == part.length
        into[:] = part.data
        return replace(part, data=into)

    def _spoiled(self, part: FragmentPart) -> FragmentPart:
        if part.key not in self.rot:
            return part
        if self.rot[part.key]:
            raise Corrupt("checksum")
        spoiled = bytearray(part.data)
        spoiled[len(spoiled) // 2] ^= 1
        return replace(part, data=bytes(spoiled))

    async def has(self, keys: Sequence[FragmentKey]) -> list[bool]:
        await self._enter("has")
        return await self.memory.has(keys)

    async def delete(self, keys: Sequence[FragmentKey]) -> None:
        await self._enter("delete")
        for key in keys:
            self.rot.pop(key, None)
        await self.memory.delete(keys)

    async def list(self, after: FragmentKey | None = None, limit: int = 1000) -> list[FragmentInfo]:
        return await self.memory.list(after, limit)

    async def usage(self) -> DriveUsage:
        return await self.memory.usage()

    async def close(self) -> None:
        await self.memory.close()

    async def holds(self, ref: BlockRef | BlockId) -> set[int]:
        """Indexes of the fragments of a block that are here, good or not."""
        block = ref.id if isinstance(ref, BlockRef) else ref
        return {info.key.index for info in await self.memory.list(None, 1 << 30) if info.key.block == block}


@dataclass(frozen=True)
class TablePlacing:
    """A layout as a healer sees it."""

    layout: Layout

    @property
    def version(self) -> int:
        return self.layout.version

    def drives(self, ref: BlockRef) -> tuple[DriveId, ...]:
        return known_table(self.layout, ref.code.width).drives(ref.id)


class LiveLayouts:
    """The layouts that a cluster follows."""

    def __init__(self, places: Places) -> None:
        self._places = places

    async def live(self) -> list[TablePlacing]:
        return [TablePlacing(layout) for layout in self._places._layouts.values()]


class Group:
    """Drives 0 to count-1, a layout of them, a cluster and a healer over both; damage is noted."""

    def __init__(self, count: int, clock: Clock | None = None, spare: int = 0, patient: Executor | None = None) -> None:
        self.clock = clock or FakeClock()
        self.drives = {drive_id(i): FakeDrive(drive_id(i), self.clock) for i in range(count + spare)}
        self.layout = layout_of(count)
        self.damage: list[tuple[BlockRef, int, DriveId | None, str]] = []
        self.cluster = Cluster(
            self.drives,
            [self.layout],
            clock=self.clock,
            on_damage=lambda *found: self.damage.append(found),
            executor=InlineExecutor(),
            patient=patient or InlineExecutor(),
        )
        self.healer = Healer(self.drives, LiveLayouts(self.cluster._places), executor=InlineExecutor())

    def __getitem__(self, number: int) -> FakeDrive:
        return self.drives[drive_id(number)]

    async def homes(self, ref: BlockRef) -> list[FakeDrive]:
        """The home of each fragment by the newest layout."""
        table = await self.cluster._places.newest(ref.code.width)
        return [self.drives[home] for home in table.homes(ref.id)]

    async def holders(self, ref: BlockRef) -> list[set[DriveId]]:
        """Which drives hold each fragment, good or not, whether they answer or not."""
        held = {drive: await fake.holds(ref) for drive, fake in self.drives.items()}
        return [{drive for drive, indexes in held.items() if index in indexes} for index in range(ref.code.width)]

    async def is_whole(self, ref: BlockRef) -> bool:
        """Whether every fragment is at home and nowhere else."""
        return await self.holders(ref) == [{home.id} for home in await self.homes(ref)]

    @property
    def running(self) -> int:
        """Calls in flight on all drives."""
        return sum(drive.running for drive in self.drives.values())


def stray_tasks() -> set["asyncio.Task[object]"]:
    """Tasks beside the one that asks."""
    return asyncio.all_tasks() - {asyncio.current_task()}
