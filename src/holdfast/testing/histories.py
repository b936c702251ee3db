"""Histories: what clients did to a store, when, and what they saw.

A history is a set of operations on keys. Each has the interval in which it took effect, if it did: from before the
request left to after the answer came. Times are integers of one clock that all clients share (CLOCK_MONOTONIC in
nanoseconds is the same in every process of a machine); they must not be taken from several machines.

What an object holds is one string, its ETag say; None is "no such object". Clients make every value they write unique
where they can: then a wrong answer cannot hide behind an equal value.

An answer that never came, or that leaves it open whether something was changed (a timeout, a broken connection, a 5xx),
makes the outcome UNKNOWN: the operation may take effect at any moment after its start, or never.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import msgspec


class Outcome(StrEnum):
    """How an operation ended."""

    DONE = "done"
    """A read saw `value`; a write wrote it, and its condition held at that moment."""
    REFUSED = "refused"
    """A conditional write answered that its condition did not hold, and changed nothing."""
    UNKNOWN = "unknown"
    """No answer, or one that says nothing. Such a write may happen any time later."""


class Action(StrEnum):
    READ = "read"
    WRITE = "write"


ABSENT = "absent"
"""Condition: nothing has the key (If-None-Match: *)."""

EXISTS = "exists"
"""Condition: something has the key (If-Match: *)."""

IS = "is"
"""Condition: the key holds `expected` (If-Match: ETag)."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation on one key. A delete is a write of None."""

    process: int
    key: str
    action: Action
    started: int
    ended: int
    """When the answer was there. Of no meaning when the outcome is UNKNOWN."""
    value: str | None
    """What was read, or is to be written; None is "no such object"."""
    outcome: Outcome = Outcome.DONE
    condition: str | None = None
    """None, ABSENT, EXISTS or IS; of writes only."""
    expected: str | None = None
    """The value that the condition IS asks for."""

    def __post_init__(self) -> None:
        if self.outcome is not Outcome.UNKNOWN and self.ended < self.started:
            raise ValueError(f"an operation ends before it starts: {self}")
        if self.condition not in (None, ABSENT, EXISTS, IS):
            raise ValueError(f"no such condition: {self.condition}")
        if self.outcome is Outcome.REFUSED and self.condition is None:
            raise ValueError(f"only a conditional write can be refused: {self}")
        if self.action is Action.READ and self.condition is not None:
            raise ValueError(f"a read has no condition here: {self}")


@dataclass(frozen=True, slots=True)
class Observed:
    """One page of a listing as a client saw it."""

    process: int
    started: int
    ended: int
    entries: Mapping[str, str]
    """Key to value, for every key listed."""
    after: str = ""
    """The page starts behind this key."""
    until: str | None = None
    """The page is known to be complete up to this key, included; None when the listing ended with it."""


def listing_reads(observed: Observed, keys: Iterable[str]) -> Iterator[Operation]:
    """What a page of a listing says about each of `keys`: a read of its value, or of its absence.

    `keys` are those the history knows to lie under the listing's prefix. Whatever was acknowledged before the listing
    started and not deleted meanwhile must then be in it, with the ETag that it had at some moment of the listing. The
    keys of a page need not be seen at one moment: S3 does not promise that.
    """
    for key in keys:
        if key <= observed.after or (observed.until is not None and key > observed.until):
            continue
        yield Operation(observed.process, key, Action.READ, observed.started, observed.ended, observed.entries.get(key))


@dataclass(frozen=True, slots=True)
class Overlap:
    """How concurrent a history was: a checker that is shown one client at a time proves nothing."""

    operations: int
    mean: float
    """Operations in flight, averaged over the time in which there was at least one."""
    maximum: int
    contended: float
    """The share of operations that ran beside another one on the same key, at least one of the two a write."""

    def __str__(self) -> str:
        return (
            f"{self.operations} operations, {self.mean:.1f} at once on average and {self.maximum} at most, "
            f"{self.contended:.0%} beside a conflicting one on their key"
        )


def overlap(history: Iterable[Operation]) -> Overlap:
    """The concurrency of a history. Operations of unknown outcome are left out, their end being unknown.

    What one client saw at once, as in a listing, is one request in flight.
    """
    known = [operation for operation in history if operation.outcome is not Outcome.UNKNOWN]
    requests = {(operation.process, operation.started, operation.ended) for operation in known}
    moments = [(started, 1) for _, started, _ in requests] + [(ended, -1) for _, _, ended in requests]
    moments.sort(key=lambda moment: (moment[0], -moment[1]))
    flying = maximum = busy = weighted = previous = 0
    for moment, step in moments:
        if flying:
            busy += moment - previous
            weighted += flying * (moment - previous)
        flying += step
        maximum = max(maximum, flying)
        previous = moment
    mean = weighted / busy if busy else float(bool(known))
    contended = sum(_contended(known)) / len(known) if known else 0.0
    return Overlap(len(known), mean, maximum, contended)


def _contended(history: list[Operation]) -> list[bool]:
    """For each operation, whether a conflicting one on its key overlaps it."""
    flags = [False] * len(history)
    active: dict[str, list[int]] = {}
    for position in sorted(range(len(history)), key=lambda position: history[position].started):
        operation = history[position]
        others = [other for other in active.get(operation.key, ()) if history[other].ended >= operation.started]
        for other in others:
            if Action.WRITE in (operation.action, history[other].action):
                flags[position] = flags[other] = True
        active[operation.key] = [*others, position]
    return flags


def save(path: Path, history: Iterable[Operation]) -> None:
    """Write a history, a JSON object a line, so that a failure can be looked at later."""
    with path.open("wb") as file:
        file.writelines(msgspec.json.encode(operation) + b"\n" for operation in history)


def load(path: Path) -> list[Operation]:
    """Read what `save` or a recording client wrote. A torn last line, of a client that was killed, is left out."""
    lines = path.read_bytes().split(b"\n")
    decoder = msgspec.json.Decoder(Operation)
    return [decoder.decode(line) for line in lines[:-1]]
