"""Brings one block to where it should be: looks, asks `plan` what to do, and does it.

Order within a block: everything that is to be written is durable before anything is deleted. So a crash at any moment
leaves at least what was there before, and doing it again ends the same way.

Rules:

- Nothing is written that was not checked against the block's commitment: a copy by its leaves, a rebuilt fragment by
  the whole commitment (`erasure.rebuild`).
- Nothing is dropped before the home's fragment of that index was read and checked, or written, by this very call.
- Two healers that believe in different layouts could each drop what the other keeps. So deletions are made one block
  at a time, in this process by a lock and across processes by the `exclusive` that is handed in, and each time the
  drives are asked once more, inside the lock, whether they still hold what is to be kept. A process that is stopped
  in there holds the others up; it never wakes to delete by what it knew yesterday.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from holdfast.cluster.plan import BlockPlan, Place, Survey, plan_block
from holdfast.cluster.proof import check_part
from holdfast.core.errors import Corrupt, NodeDown, NotFound, Unavailable
from holdfast.core.ids import DriveId
from holdfast.drives.interface import Drive, Fragment, FragmentKey, FragmentPart
from holdfast.erasure import BlockRef, Code, rebuild

T = TypeVar("T")

Exclusive = Callable[[], AbstractAsyncContextManager[None]]
"""Holds every other process's healer off while it is entered (flock). Nothing, where only one process has a healer."""


class Placing(Protocol):
    """Where one layout wants the fragments of a block: the partition table for the block's width."""

    @property
    def version(self) -> int: ...

    def drives(self, ref: BlockRef) -> tuple[DriveId, ...]:
        """Active drives in the order of preference: fragment i belongs on the i-th, hand-offs go to those behind."""
        ...


class LiveLayouts(Protocol):
    """The layouts that are in use. Read anew by every call: another process may have changed them."""

    async def live(self) -> Sequence[Placing]:
        """Newest first, at least one."""
        ...


Writes = list[tuple[DriveId, Fragment]]
"""Fragments, and the drives that they go to."""


@dataclass(frozen=True, slots=True)
class Healed:
    """What became of a block."""

    whole: bool
    """Every fragment is at home and nothing else lies about, as far as was looked."""
    lost: bool
    """It cannot be read now."""
    written: int = 0
    """Fragments."""
    written_bytes: int = 0
    dropped: int = 0


async def survey_blocks(drives: Mapping[DriveId, Drive], placing: Placing, refs: Sequence[BlockRef]) -> list[Survey]:
    """Which drives hold which fragments of `refs`, by their indexes alone: rot is not seen.

    A drive that the layout prefers and that is not among `drives` is silent.
    """
    keys = [FragmentKey(ref.id, index) for ref in refs for index in range(ref.code.width)]
    surveys = [Survey(silent=set(placing.drives(ref)) - drives.keys()) for ref in refs]
    owners = [survey for ref, survey in zip(refs, surveys, strict=True) for _ in range(ref.code.width)]

    async def ask(drive: Drive) -> None:
        try:
            answers = await drive.has(keys)
        except Unavailable:
            for survey in surveys:
                survey.silent.add(drive.id)
            return
        for key, survey, held in zip(keys, owners, answers, strict=True):
            if held:
                survey.found(key.index, drive.id)

    await asyncio.gather(*map(ask, drives.values()))
    return surveys


class Healer:
    """Acts on blocks, through the drives that are attached."""

    def __init__(
        self,
        drives: Mapping[DriveId, Drive],
        layouts: LiveLayouts,
        exclusive: Exclusive = nullcontext,
        *,
        executor: Executor | None = None,
    ) -> None:
        """`drives` may change at any time. `executor` checks and rebuilds fragments; None is the event loop's own."""
        self._drives = drives
        self._layouts = layouts
        self._exclusive = exclusive
        self._executor = executor
        self._lock = asyncio.Lock()

    def _attached(self, drive: DriveId) -> Drive:
        """Raises NodeDown for a drive that its owner has taken out since it was asked what it holds."""
        attached = self._drives.get(drive)
        if attached is None:
            raise NodeDown(f"drive {drive.hex()} was taken out")
        return attached

    async def survey(self, refs: Sequence[BlockRef], placing: Placing) -> list[Survey]:
        """As `survey_blocks`, of the attached drives."""
        return await survey_blocks(self._drives, placing, refs)

    async def plan(self, refs: Sequence[BlockRef]) -> list[BlockPlan]:
        """What the drives' indexes say that blocks need now. Raises Unavailable when the layouts cannot be read."""
        placing = (await self._layouts.live())[0]
        surveys = await self.survey(refs, placing)
        return [plan_block(ref.code, placing.drives(ref), survey) for ref, survey in zip(refs, surveys, strict=True)]

    async def heal(self, ref: BlockRef, tag: bytes, survey: Survey | None = None) -> Healed:
        """Bring a block home; what is written carries `tag`. The caller has made sure that its content lives.

        Without a `survey` every fragment is read and checked first. Raises Corrupt when good fragments do not make
        up the block, Unavailable when the layouts cannot be read; a drive that fails on the way is waited for.
        """
        placing = (await self._layouts.live())[0]
        parts: dict[Place, FragmentPart] = {}
        if survey is None:
            [survey] = await self.survey([ref], placing)
            await self._read_all(ref, survey, parts)
        preferred = placing.drives(ref)
        while True:
            plan = plan_block(ref.code, preferred, survey)
            if not await self._read(ref, survey, parts, to_read(ref.code, plan, survey)):
                break
        writes = await self._writes(ref, tag, plan, parts)
        return await self._carry_out(ref, placing, plan, survey, writes)

    async def _read_all(self, ref: BlockRef, survey: Survey, parts: dict[Place, FragmentPart]) -> None:
        places = [(index, drive) for index, drives in survey.good.items() for drive in drives]
        await self._read(ref, survey, parts, places)

    async def _read(
        self, ref: BlockRef, survey: Survey, parts: dict[Place, FragmentPart], places: Sequence[Place]
    ) -> bool:
        """Read and check what is not in `parts` yet; whether the survey had to be corrected."""
        wanted = [place for place in places if place not in parts]
        read = await asyncio.gather(*(self._read_one(ref, survey, place) for place in wanted))
        parts |= {place: part for place, part in zip(wanted, read, strict=True) if part is not None}
        return None in read

    async def _read_one(self, ref: BlockRef, survey: Survey, place: Place) -> FragmentPart | None:
        index, drive = place
        try:
            part = await self._attached(drive).get(FragmentKey(ref.id, index))
            await self._in_thread(check_part, ref, index, part)
        except NotFound:
            survey.lost(index, drive)
        except Corrupt:
            survey.spoiled(index, drive)
        except Unavailable:
            survey.lost(index, drive)
            survey.silent.add(drive)
        else:
            return part
        return None

    async def _in_thread(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, partial(call, *arguments))

    async def _writes(self, ref: BlockRef, tag: bytes, plan: BlockPlan, parts: Mapping[Place, FragmentPart]) -> Writes:
        """The fragments that `plan` copies or rebuilds. Raises Corrupt."""
        originals = [(copy.target, parts[copy.index, copy.source]) for copy in plan.copies]
        writes = [
            (drive, Fragment(part.key, part.commitment, part.leaves, tag, part.data)) for drive, part in originals
        ]
        if plan.rebuild:
            writes += await self._in_thread(rebuilt, ref, tag, plan, parts)
        return writes

    async def _carry_out(
        self, ref: BlockRef, placing: Placing, plan: BlockPlan, survey: Survey, writes: Writes
    ) -> Healed:
        written = await asyncio.gather(*(self._write(drive, fragment, survey) for drive, fragment in writes))
        failed = {fragment.key.index for (_, fragment), done in zip(writes, written, strict=True) if not done}
        drop = [place for place in plan.drop if place[0] not in failed]
        dropped = await self._drop(ref, placing, drop, plan.keep) if drop else 0
        return Healed(
            whole=not (plan.waiting or plan.lost or failed) and dropped == len(plan.drop),
            lost=plan.lost,
            written=sum(written),
            written_bytes=sum(len(f.payload) for (_, f), done in zip(writes, written, strict=True) if done),
            dropped=dropped,
        )

    async def _write(self, drive: DriveId, fragment: Fragment, survey: Survey) -> bool:
        """Whether the fragment is durable on its drive now."""
        try:
            if (fragment.key.index, drive) in survey.bad:
                # A put of a key that is there need not rewrite it; what is bad is no loss.
                await self._attached(drive).delete([fragment.key])
            await self._attached(drive).put([fragment])
        except Unavailable:
            return False
        return True

    async def _drop(self, ref: BlockRef, placing: Placing, places: Sequence[Place], keep: Mapping[int, DriveId]) -> int:
        """Delete fragments that are still surplus; how many were deleted."""
        dropped = 0
        async with self._lock, self._exclusive():
            if (await self._layouts.live())[0].version != placing.version:
                return 0
            for index, drive in places:
                key = FragmentKey(ref.id, index)
                try:
                    if (await self._attached(keep[index]).has([key]))[0]:
                        await self._attached(drive).delete([key])
                        dropped += 1
                except Unavailable:
                    continue
        return dropped


def to_read(code: Code, plan: BlockPlan, survey: Survey) -> list[Place]:
    """What must be read and checked before a plan is carried out.

    The originals of its copies; k fragments when something is rebuilt; and what a home holds already, before another
    good fragment of that index is dropped on the strength of it.
    """
    places = {copy.index: (copy.index, copy.source) for copy in plan.copies}
    rebuilding = {index for index, _ in plan.rebuild}
    for index in {index for index, _ in plan.drop} - places.keys() - rebuilding:
        places[index] = (index, plan.keep[index])
    if rebuilding:
        for index in sorted(survey.good):
            if len(places) >= code.k:
                break
            places.setdefault(index, (index, min(survey.good[index])))
    return list(places.values())


def rebuilt(ref: BlockRef, tag: bytes, plan: BlockPlan, parts: Mapping[Place, FragmentPart]) -> Writes:
    """The fragments that `plan` rebuilds. Blocks for as long as erasure does. Raises Corrupt."""
    payloads = {index: part.data for (index, _), part in parts.items()}
    commitment = next(iter(parts.values())).commitment
    targets = dict(plan.rebuild)
    made = rebuild(ref, commitment, payloads, list(targets))
    return [
        (drive, Fragment(FragmentKey(ref.id, index), commitment, made[index][1], tag, made[index][0]))
        for index, drive in targets.items()
    ]


async def delete_everywhere(drives: Mapping[DriveId, Drive], refs: Collection[BlockRef]) -> frozenset[DriveId]:
    """Delete every fragment of these blocks from every drive that holds some: two questions to each, whatever `refs`.

    The drives that did not answer: fragments may be left on them, for the sweep to find when they return.
    """
    keys = [FragmentKey(ref.id, index) for ref in refs for index in range(ref.code.width)]
    silent: set[DriveId] = set()

    async def delete_from(drive: Drive) -> None:
        try:
            # A tombstone is a record, and this comes when space is short: none for what is not there.
            here = [key for key, is_held in zip(keys, await drive.has(keys), strict=True) if is_held]
            if here:
                await drive.delete(here)
        except Unavailable:
            silent.add(drive.id)

    if keys:
        await asyncio.gather(*map(delete_from, list(drives.values())))
    return frozenset(silent)
