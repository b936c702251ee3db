"""The mirror set: the log written to every current mirror at once, and read from whichever has it.

Rules. `append` returns when the record is on stable storage on every mirror that it does not name as failed. What a
crash left is settled by `roll_forward`: the record behind the last one that is known may be on any of the mirrors, and
one that is whole on any of them is completed on all. That is right because nobody was told that it failed: a commit
whose answer is still owed may take effect. It is needed because it may have been acknowledged: it was on every mirror
then, and the others may have been lost since. A record that is whole on none was never acknowledged, and the next one
overwrites it. Only the last record can be on some mirrors and not on others, for one is under way at a time. A mirror
that lacks an earlier one has rotted, or was put back to an older moment: completed with the last record only it would
look whole, and be none. `roll_forward` notes it.

A mirror whose drive does not answer in time has failed. Then what was begun on it may still be using the `Mirror`: who
gets that error lets go of it.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from holdfast.core.errors import Corrupt, Full, Unavailable
from holdfast.core.ids import Buffer
from holdfast.meta.local.bounded import BoundedDisk
from holdfast.meta.local.log import Position, Record, encode_record, following
from holdfast.meta.local.mirror import Mirror

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

T = TypeVar("T")

Failures = dict[Mirror, OSError]


class MirrorFailed(Exception):
    """A mirror could not be read or patched. Never leaves the engine: the mirror leaves the set."""

    def __init__(self, mirror: Mirror, error: OSError) -> None:
        super().__init__(f"{mirror}: {error}")
        self.mirror = mirror


class MirrorSet:
    """The current mirrors, in order of preference."""

    def __init__(self, mirrors: Sequence[Mirror], disk: BoundedDisk, segment_bytes: int) -> None:
        self.mirrors = tuple(mirrors)
        self._disk = disk
        self._segment_bytes = segment_bytes
        self.lacking: set[Mirror] = set()
        """Those without a record that was on every mirror, as the last `roll_forward` found."""

    def close(self) -> None:
        for mirror in self.mirrors:
            mirror.close()

    def each(self, action: Callable[[Mirror], None], mirrors: Sequence[Mirror] | None = None) -> Failures:
        """Do something on mirrors at the same time; those on which it failed."""
        chosen = self.mirrors if mirrors is None else mirrors
        outcomes = self._disk.call_each({mirror.drive: partial(action, mirror) for mirror in chosen})
        return {mirror: error for mirror in chosen if (error := outcomes[mirror.drive]) is not None}

    def _on(self, mirror: Mirror, action: Callable[[], T]) -> T:
        """Do something of several steps on one mirror. Raises MirrorFailed."""
        try:
            return self._disk.call(mirror.drive, action)
        except OSError as error:
            raise MirrorFailed(mirror, error) from error

    def append(self, position: Position, payload: Buffer, epoch: int) -> tuple[Position, Failures]:
        """Write a record behind `position`, durably; the new position, and the mirrors that failed.

        Raises Full, with nothing written, when a new segment is needed and there is no room for it; Unavailable when
        besides, one that was made cannot be taken back, which `roll_forward` must settle.
        """
        buffers, record_hash, length = encode_record(payload, epoch=epoch, after=position)
        segment, offset, failures = self._place(position, length)

        def write(mirror: Mirror) -> None:
            if mirror not in failures:
                mirror.write(segment, offset, buffers)
                mirror.sync()

        failures.update(self.each(write))
        return following(position, segment, offset, record_hash, length), failures

    def _place(self, position: Position, length: int) -> tuple[int, int, Failures]:
        """Segment and offset for a record of `length` bytes, which are there on every mirror that did not fail."""
        failures: Failures = {}
        fits = True
        for mirror in self.mirrors:
            try:
                fits = fits and mirror.room(position) >= length
            except OSError as error:
                failures[mirror] = error
        if fits and len(failures) < len(self.mirrors):
            return position.segment, position.offset, failures
        segment = position.sequence + 1
        rolled = self.each(lambda mirror: mirror.roll(segment, max(length, self._segment_bytes)))
        if any(error.errno in NO_ROOM for error in rolled.values()):
            if left := self.each(lambda mirror: mirror.unroll(segment)):
                # Where it stays, smaller records would end up in another segment than on the other mirrors.
                raise Unavailable(f"a segment of the metadata log cannot be taken back: {next(iter(left.values()))}")
            raise Full("no room for another segment of the metadata log")
        failures.update(rolled)
        return segment, 0, failures

    def roll_forward(self, position: Position) -> Iterator[tuple[Position, Record]]:
        """The records behind `position`, each with the position it leads to; the last is completed on every mirror.

        A mirror that lacks a record which another has, or holds it damaged, is given it. Raises MirrorFailed when it
        cannot be, and Corrupt when records behind the end show that one in between is lost.
        """
        last: tuple[Position, Position, Record] | None = None
        self.lacking.clear()
        self._note_lacking(position)
        while (found := self.next(position)) is not None:
            after, record = found
            if last is not None:
                self._note_lacking(last[1])
                yield last[1], last[2]
            last = (position, after, record)
            position = after
        for mirror in self.mirrors:
            if self._on(mirror, partial(mirror.claims_more, position)):
                raise Corrupt(
                    f"the metadata log in {mirror.path} goes on behind record {position.sequence}, but record"
                    f" {position.sequence + 1} is whole on no mirror: commits were lost to more failures than the store"
                    " was made for; restore the metadata from a backup"
                )
        if last is not None:
            before, after, record = last
            self._complete(before, after, record)
            yield after, record
        if position.segment != position.sequence + 1:
            for mirror, error in self.each(lambda mirror: mirror.unroll(position.sequence + 1)).items():
                raise MirrorFailed(mirror, error)

    def _note_lacking(self, position: Position) -> None:
        for mirror in self.mirrors:
            if mirror not in self.lacking and not self._on(mirror, partial(mirror.confirms, position)):
                self.lacking.add(mirror)

    def next(self, position: Position) -> tuple[Position, Record] | None:
        """The record behind `position`, from the first mirror that has it whole; mirrors before that are patched."""
        places = [(position.segment, position.offset), (position.sequence + 1, 0)]
        for segment, offset in places:
            lacking: list[Mirror] = []
            for mirror in self.mirrors:
                record = self._on(mirror, partial(mirror.read_next, position, segment, offset))
                if record is None:
                    lacking.append(mirror)
                    continue
                after = following(position, segment, offset, record.hash, record.length)
                if lacking:
                    self._write(lacking, position, after, record)
                return after, record
        return None

    def patch_next(self, position: Position, mirrors: Sequence[Mirror]) -> tuple[Position, Sequence[Mirror]] | None:
        """Read the record behind `position` on `mirrors`, and give it to those that lack it or hold it damaged.

        Only for records that are known to be on every mirror. Where it leads, and who lacked it; None when it is whole
        on none. Raises MirrorFailed.
        """
        found = self.next(position)
        if found is None:
            return None
        after, record = found
        lacking = [
            mirror
            for mirror in mirrors
            if self._on(mirror, partial(mirror.read_next, position, after.segment, after.last)) is None
        ]
        self._write(lacking, position, after, record)
        return after, lacking

    def _complete(self, before: Position, after: Position, record: Record) -> None:
        """Put a record on stable storage on every mirror, also where it can be read: it may be in a cache only."""
        self._write(self.mirrors, before, after, record)

    def _write(self, mirrors: Sequence[Mirror], before: Position, after: Position, record: Record) -> None:
        buffers, record_hash, length = encode_record(record.payload, epoch=record.epoch, after=before)
        assert record_hash == record.hash

        def write(mirror: Mirror) -> None:
            if after.segment != before.segment:
                mirror.roll(after.segment, max(length, self._segment_bytes))
            mirror.write(after.segment, after.last, buffers)
            mirror.sync()

        for mirror, error in self.each(write, mirrors).items():
            raise MirrorFailed(mirror, error)
