"""Decides what a block needs: pure functions from what was found to what should be done.

The rules of a repair, in the order in which they apply to each fragment of a block:

1. It belongs on its home, the drive that the newest layout names for its index. Where it is good, nothing is done.
2. A good one elsewhere is copied home; none at all is rebuilt there from k others.
3. Surplus fragments, and bad ones, are dropped only once the home holds a good one.
4. A home that does not answer is waited for: its fragment stays wherever it is now. Rebuilding it onto other drives is
   the layout's decision (a drive that is declared lost gives its homes to others), not a repair's.
5. Below k good fragments nothing is dropped, and nothing can be written but copies of what is there.
6. A fragment that has no home, because there are fewer active drives than fragments, stays on any active drive that
   has it and is moved to one from a drive that is being emptied. It is not made anew: sharing a drive with another
   fragment of its block, it would hardly protect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.core.ids import DriveId
from holdfast.erasure.code import Code

Place = tuple[int, DriveId]
"""Fragment index and drive."""


@dataclass(slots=True)
class Survey:
    """What was found of one block."""

    good: dict[int, set[DriveId]] = field(default_factory=dict)
    """By fragment index: the drives that hold it, as far as is known in good order."""
    bad: set[Place] = field(default_factory=set)
    silent: set[DriveId] = field(default_factory=set)
    """Drives that do not answer: what they hold is not known."""

    def found(self, index: int, drive: DriveId) -> None:
        self.good.setdefault(index, set()).add(drive)

    def spoiled(self, index: int, drive: DriveId) -> None:
        """One that was thought good turned out bad."""
        self.lost(index, drive)
        self.bad.add((index, drive))

    def lost(self, index: int, drive: DriveId) -> None:
        """One that was thought to be there is not."""
        holders = self.good.get(index, set())
        holders.discard(drive)
        if not holders:
            self.good.pop(index, None)


@dataclass(frozen=True, slots=True)
class Copy:
    index: int
    source: DriveId
    target: DriveId


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """What to do about one block."""

    copies: tuple[Copy, ...] = ()
    rebuild: tuple[Place, ...] = ()
    """Fragments to compute from k others, and where to put them."""
    drop: tuple[Place, ...] = ()
    """What to delete, each only while a good fragment of that index is durable where `keep` says."""
    keep: Mapping[int, DriveId] = field(default_factory=dict)
    """Where each fragment is to be once the plan was carried out: its home, or its refuge. Silent ones are left out."""
    waiting: tuple[int, ...] = ()
    """Fragments whose home does not answer."""
    homeless: tuple[int, ...] = ()
    """Fragments that have no home: the block survives fewer losses than its code says until drives are added."""
    missing: tuple[int, ...] = ()
    """Fragments of which no good one was found, those in `rebuild` included."""
    lost: bool = False
    """Fewer than k good fragments: unreadable, for good unless a silent drive holds more."""

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do now."""
        return not (self.copies or self.rebuild or self.drop)

    @property
    def whole(self) -> bool:
        """Whether the block is as it should be, or as near to it as there are drives."""
        return self.idle and not self.waiting and not self.lost


def plan_block(code: Code, preferred: Sequence[DriveId], survey: Survey) -> BlockPlan:
    """What to do about a block of `code` whose preferred drives, home first by index, are `preferred`."""
    homes = dict(enumerate(preferred[: code.width]))
    missing = tuple(index for index in range(code.width) if index not in survey.good)
    lost = code.width - len(missing) < code.k
    copies, rebuild, waiting, homeless = [], [], [], []
    keep = {}
    drop: list[Place] = []
    for index in range(code.width):
        holders = survey.good.get(index, set())
        home = homes.get(index)
        if home is None:
            homeless.append(index)
            home = _refuge(index, holders, preferred, survey)
            if home is None:
                continue
        if home in survey.silent:
            waiting.append(index)
            continue
        keep[index] = home
        if home not in holders and holders:
            copies.append(Copy(index, min(holders), home))
        elif not holders and not lost:
            rebuild.append((index, home))
        if not lost:
            drop += [(index, drive) for drive in sorted(holders - {home})]
            drop += [place for place in sorted(survey.bad) if place[0] == index and place[1] != home]
    return BlockPlan(tuple(copies), tuple(rebuild), tuple(drop), keep, tuple(waiting), tuple(homeless), missing, lost)


def _refuge(index: int, holders: set[DriveId], preferred: Sequence[DriveId], survey: Survey) -> DriveId | None:
    """Where a fragment without a home may stay, or go; None when it is nowhere, or nowhere is left for it."""
    if not holders:
        return None
    staying = [drive for drive in preferred if drive in holders]
    answering = [drive for drive in preferred if drive not in survey.silent]
    places = staying or answering[index % max(len(answering), 1) :]
    return places[0] if places else None
