"""How the store is, in numbers and in words.

Everything comes from rows, so any process can say it: what the upkeep process measured and counted is in its workers'
progress records.
"""

from dataclasses import dataclass

from holdfast.erasure.code import Code
from holdfast.upkeep.audit import Auditor, AuditRecord
from holdfast.upkeep.collect import Collector, CollectRecord
from holdfast.upkeep.interface import Catalogue, Layouts
from holdfast.upkeep.progress import load
from holdfast.upkeep.repair import Repairer, RepairRecord

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))


@dataclass(frozen=True, slots=True)
class UnderProtected:
    """Contents that survive fewer losses than the store's code promises, until they are recoded."""

    code: str
    contents: int
    length: int
    """Plain bytes."""


@dataclass(frozen=True, slots=True)
class Health:
    """What `status` shows of the safety of what is stored."""

    damaged: int
    """Blocks in the repair outbox."""
    seconds_left: float | None
    """Until they are repaired, at the measured pace; None when that is not known, or when they wait for a drive."""
    waiting: int
    """Blocks of the outbox that wait for a drive that does not answer."""
    lost: int
    """Blocks that cannot be read with the drives that answer."""
    moving: int
    """Layouts still to be left: more than none while a rebalance or drain runs."""
    homeless: int
    """Blocks with fewer fragments than their code wants, because there are too few drives."""
    under_protected: tuple[UnderProtected, ...]
    grace_gave_way: bool
    aside: int = 0
    """Deleted contents whose blocks cannot all be found now."""

    @property
    def is_healthy(self) -> bool:
        return not (self.damaged or self.lost or self.moving or self.homeless)

    def words(self) -> str:
        """One line: "healthy", or what is the matter, worst first."""
        said = []
        if self.lost:
            said.append(f"{_count(self.lost, 'block')} cannot be read now")
        if self.damaged:
            left = "waiting for a missing drive" if self.waiting >= self.damaged else about(self.seconds_left)
            said.append(f"repair needed: {_count(self.damaged, 'block')}, {left}")
        if self.moving:
            said.append("moving data to its new drives")
        if self.homeless:
            said.append(f"too few drives: {_count(self.homeless, 'block')} under-protected")
        return "; ".join(said) or "healthy"

    def notes(self) -> list[str]:
        """What is no fault but should be known."""
        notes = [
            f"{_count(group.contents, 'object or part', 'objects or parts')} under-protected: kept as {group.code}, "
            "fewer lost drives are survived than by the store's setting; `holdfast recode` changes that"
            for group in self.under_protected
        ]
        if self.grace_gave_way:
            notes.append(
                "space is short: deleted data is not kept for the grace, so metadata backups may not restore whole"
            )
        if self.aside:
            notes.append(
                f"{_count(self.aside, 'deleted object or part', 'deleted objects or parts')} cannot be collected yet, "
                "since what lists the blocks cannot be read; the log says why"
            )
        return notes


async def health(catalogue: Catalogue, layouts: Layouts, code: Code) -> Health:
    """How the store is now, for a store that is set to `code`. Reads a handful of rows and counts the outbox."""
    audit = await load(catalogue, Auditor.name, AuditRecord)
    repair = await load(catalogue, Repairer.name, RepairRecord)
    collect = await load(catalogue, Collector.name, CollectRecord)
    damaged = await catalogue.count_damaged()
    waiting = min(repair.waiting, damaged)
    pace = repair.blocks_per_second
    return Health(
        damaged=damaged,
        seconds_left=(damaged - waiting) / pace if pace > 0 else None,
        waiting=waiting,
        lost=min(repair.lost, damaged),
        moving=len(await layouts.live()) - 1,
        homeless=audit.known_homeless,
        under_protected=under_protected(audit, code),
        grace_gave_way=collect.grace_gave_way,
        aside=collect.aside,
    )


def under_protected(audit: AuditRecord, code: Code) -> tuple[UnderProtected, ...]:
    """What the last audit found to survive fewer losses than `code`."""
    return tuple(
        UnderProtected(kept.code, kept.contents, kept.length)
        for kept in sorted(audit.known_kept.values(), key=lambda kept: kept.code)
        if kept.losses < code.m
    )


def about(seconds: float | None) -> str:
    """A duration as people say it: "about 3 hours", "time unknown yet"."""
    if seconds is None:
        return "time unknown yet"
    for unit, length in _UNITS:
        if seconds >= length:
            return f"about {_count(round(seconds / length), unit)}"
    return "less than a minute"


def _count(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
