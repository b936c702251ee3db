"""The cluster: blocks over many drives.

The only room that talks to more than one drive. It knows fragments and where they belong, and never a key.

Invariants.
- `put` returns only when the code's write quorum, min(n, k+1), is durable. What is not at home is named.
- `get` returns only bytes that the block's id commits to.
- Every method may be cancelled at any moment and leaves no task behind.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

from holdfast.cluster.latency import Latency
from holdfast.cluster.places import Places
from holdfast.cluster.proof import check_part
from holdfast.cluster.read import SLOW_READER_SECONDS, Damage, Read
from holdfast.cluster.slow import SlowDrives
from holdfast.cluster.write import SLOW_WRITER_SECONDS, Write, Written
from holdfast.core.clock import Clock
from holdfast.core.errors import Corrupt, NodeDown, NotEnoughFragments, NotFound, Unavailable
from holdfast.core.ids import Buffer, DriveId
from holdfast.drives.interface import Drive, Fragment, FragmentKey, FragmentPart
from holdfast.erasure import BlockRef, CodedBlock, rebuild
from holdfast.placement import Layout

T = TypeVar("T")

OnDamage = Callable[[BlockRef, int, DriveId | None, str], None]
"""Told of a fragment that is bad (on which drive) or missing (None), and why. Called on the event loop: no waiting."""


@dataclass(frozen=True, slots=True)
class BlockStat:
    """Where the fragments of a block are, by the drives' indexes; rot is not seen."""

    homes: tuple[DriveId | None, ...]
    """Where the newest layout wants each fragment; None where it has too few drives."""
    holders: tuple[frozenset[DriveId], ...]
    """Which drives hold each fragment: home, handoffs, homes of older layouts."""
    silent: frozenset[DriveId]
    """Drives that did not answer, and homes that are not attached."""

    @property
    def is_whole(self) -> bool:
        """Every fragment is at home and nowhere else."""
        return all(holders == {home} for home, holders in zip(self.homes, self.holders, strict=True))


@dataclass(frozen=True, slots=True)
class Repaired:
    written: tuple[int, ...]
    """Fragments brought or rebuilt to their homes."""
    missing: tuple[int, ...]
    """Fragments whose homes do not take them now."""


class Cluster:
    """Blocks over the drives of a mapping, which its owner may change at any time."""

    def __init__(
        self,
        drives: Mapping[DriveId, Drive],
        layouts: Sequence[Layout] = (),
        *,
        clock: Clock,
        on_damage: OnDamage | None = None,
        executor: Executor | None = None,
    ) -> None:
        """`executor` checks and joins large blocks; None is the event loop's own."""
        self._places = Places(drives, executor)
        self._drives = drives
        self._clock = clock
        self._on_damage = on_damage
        self._executor = executor
        self._slow_writers = SlowDrives(clock, SLOW_WRITER_SECONDS)
        self._slow_readers = SlowDrives(clock, SLOW_READER_SECONDS)
        self._latency = Latency()
        if layouts:
            self.use(layouts)

    def use(self, layouts: Sequence[Layout]) -> None:
        """Place new blocks by the newest of these layouts and look for old ones by all of them.

        Writes in flight end by the layout that they began with. Raises InvalidRequest when there are none or too many.
        """
        self._places.use(layouts)

    async def put(self, block: CodedBlock, tag: bytes) -> Written:
        """Write all fragments; durable to the quorum on return.

        Raises Full, NotEnoughFragments, and InvalidRequest when a drive refuses a fragment by its limits. When it
        raises or is cancelled, any of the fragments may be there.
        """
        table = await self._places.newest(block.ref.code.width)
        order = table.drives(block.ref.id)
        write = Write(block, tag, order, self._drives, self._slow_writers, self._clock)
        return Written(await write.run(), table.version)

    async def get(self, ref: BlockRef) -> Buffer:
        """The sealed block, `ref.length` bytes.

        Raises NotFound when every drive answered and none holds anything of it, Corrupt when there are too few good
        fragments and bad ones beside them, NotEnoughFragments otherwise.
        """
        homes = await self._places.homes(ref)
        read = Read(ref, homes, self._drives, self._slow_readers, self._latency, self._clock, self._executor)
        try:
            sealed = await read.run()
        except (Corrupt, NotEnoughFragments):
            self._report(ref, read.damage)
            raise
        self._report(ref, read.damage)
        return sealed

    async def stat(self, ref: BlockRef) -> BlockStat:
        """Where every fragment is, handoffs and older homes included. Reads no payload."""
        [stat] = await self.stat_many([ref])
        return stat

    async def stat_many(self, refs: Sequence[BlockRef]) -> list[BlockStat]:
        """As `stat`, in the order of `refs`, at the cost of one call to each drive."""
        keys = [FragmentKey(ref.id, index) for ref in refs for index in range(ref.code.width)]
        holders: dict[FragmentKey, set[DriveId]] = {key: set() for key in keys}
        silent: set[DriveId] = set()

        async def ask(drive: DriveId) -> None:
            try:
                held = await self._drive(drive).has(keys)
            except Unavailable:
                silent.add(drive)
                return
            for key, is_held in zip(keys, held, strict=True):
                if is_held:
                    holders[key].add(drive)

        await _each(list(self._drives), ask)
        found = []
        for ref in refs:
            homes = await self._homes(ref)
            away = {home for home in homes if home is not None and home not in self._drives}
            of_block = tuple(frozenset(holders[FragmentKey(ref.id, i)]) for i in range(ref.code.width))
            found.append(BlockStat(homes, of_block, frozenset(silent | away)))
        return found

    async def delete(self, refs: Collection[BlockRef]) -> frozenset[DriveId]:
        """Delete every fragment of these blocks from every attached drive, one call to each.

        The drives that did not answer: fragments may be left on them, to be swept when they return.
        """
        keys = [FragmentKey(ref.id, index) for ref in refs for index in range(ref.code.width)]
        silent: set[DriveId] = set()

        async def delete_from(drive: DriveId) -> None:
            try:
                held = await self._drive(drive).has(keys)
                here = [key for key, is_held in zip(keys, held, strict=True) if is_held]
                if here:
                    await self._drive(drive).delete(here)
            except Unavailable:
                silent.add(drive)

        if keys:
            await _each(list(self._drives), delete_from)
        return frozenset(silent)

    async def put_fragments(
        self, ref: BlockRef, commitment: bytes, fragments: Mapping[int, tuple[Buffer, bytes]], tag: bytes
    ) -> tuple[int, ...]:
        """Write fragments (payload and leaf hashes by index) to their homes, then drop them everywhere else.

        The caller has checked them (`erasure.rebuild`). The indexes whose home did not take them, which were left where
        they were.
        """
        homes = await self._homes(ref)
        written: set[int] = set()

        async def store(index: int) -> None:
            home = homes[index]
            if home is None:
                return
            payload, leaves = fragments[index]
            try:
                await self._drive(home).put((Fragment(FragmentKey(ref.id, index), commitment, leaves, tag, payload),))
            except Unavailable:
                return
            written.add(index)

        await _each(list(fragments), store)
        await self._drop_strays(ref, homes, written)
        return tuple(sorted(fragments.keys() - written))

    async def repair(self, ref: BlockRef, tag: bytes) -> Repaired:
        """Read and check every fragment, rebuild what is missing or bad, write it home, drop it elsewhere.

        Raises NotFound, NotEnoughFragments, and Corrupt when the good fragments do not make up the block.
        """
        stat = await self.stat(ref)
        good: dict[int, FragmentPart] = {}
        at_home: set[int] = set()
        bad: list[tuple[int, DriveId]] = []

        async def read(place: tuple[int, DriveId]) -> None:
            index, drive = place
            try:
                good[index] = await self._read_checked(ref, index, drive)
            except Corrupt:
                bad.append(place)
            except (NotFound, Unavailable):
                pass
            else:
                if drive == stat.homes[index]:
                    at_home.add(index)

        await _each([(i, drive) for i, holders in enumerate(stat.holders) for drive in sorted(holders)], read)
        if not good and not any(stat.holders) and not stat.silent:
            raise NotFound(f"no drive holds anything of block {ref.id.hex()}")
        if len(good) < ref.code.k:
            raise NotEnoughFragments(f"{len(good)} good fragments of the {ref.code.k} that {ref.code} needs")
        wanted = [index for index in range(ref.code.width) if index not in at_home]
        commitment = next(iter(good.values())).commitment
        payloads = {index: part.data for index, part in good.items()}
        loop = asyncio.get_running_loop()
        rebuilt = await loop.run_in_executor(self._executor, rebuild, ref, commitment, payloads, wanted)
        # A put of a key that is there need not rewrite it, and what is bad is no loss.
        await self._drop(ref, bad)
        missing = await self.put_fragments(ref, commitment, rebuilt, tag)
        await self._drop_strays(ref, stat.homes, at_home)
        return Repaired(tuple(sorted(set(wanted) - set(missing))), missing)

    async def _read_checked(self, ref: BlockRef, index: int, drive: DriveId) -> FragmentPart:
        """A fragment that is what was committed to. Raises Corrupt, having reported it, NotFound, Unavailable."""
        try:
            part = await self._drive(drive).get(FragmentKey(ref.id, index))
            await asyncio.get_running_loop().run_in_executor(self._executor, check_part, ref, index, part)
        except Corrupt as error:
            self._report(ref, [Damage(index, drive, str(error))])
            raise
        return part

    async def _drop_strays(self, ref: BlockRef, homes: Sequence[DriveId | None], indexes: Collection[int]) -> None:
        """Delete fragments, durable at home, from everywhere else, unless the layout changed meanwhile."""
        if not indexes:
            return
        stat = await self.stat(ref)
        if stat.homes == tuple(homes):
            settled = [index for index in indexes if homes[index] in stat.holders[index]]
            await self._drop(ref, [(i, drive) for i in settled for drive in stat.holders[i] if drive != homes[i]])

    async def _drop(self, ref: BlockRef, places: Collection[tuple[int, DriveId]]) -> None:
        """Delete fragments; a drive that does not answer keeps them, for the next repair or sweep to find."""

        async def drop(drive: DriveId) -> None:
            try:
                await self._drive(drive).delete([FragmentKey(ref.id, index) for index, on in places if on == drive])
            except Unavailable:
                pass

        await _each({drive for _, drive in places}, drop)

    async def _homes(self, ref: BlockRef) -> tuple[DriveId | None, ...]:
        homes = (await self._places.newest(ref.code.width)).homes(ref.id)
        return homes + (None,) * (ref.code.width - len(homes))

    def _drive(self, drive: DriveId) -> Drive:
        """An attached drive. Raises NodeDown when it was taken out meanwhile."""
        try:
            return self._drives[drive]
        except KeyError:
            raise NodeDown(f"drive {drive.hex()} is not attached") from None

    def _report(self, ref: BlockRef, damage: Collection[Damage]) -> None:
        if self._on_damage is not None:
            for found in damage:
                self._on_damage(ref, found.index, found.drive, found.reason)


async def _each(items: Iterable[T], do: Callable[[T], Awaitable[None]]) -> None:
    """Do all at once. When one fails or the caller is cancelled, the others are stopped before this returns."""
    tasks = [asyncio.ensure_future(do(item)) for item in items]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
