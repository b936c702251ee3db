"""The engine below asyncio: commits batches, and puts right what a crash or a lost drive left.

There is no leader. Whoever holds the store-wide lock is the writer until it lets go:

1. `follow`: if the generation changed, reopen what `state` names; if the last holder died in the middle, settle it.
2. Check each commit's expectations against the view and apply it there, in one transaction that nobody sees yet.
3. Mark the control page; append one record to every mirror; sync them all. A mirror that fails leaves the set, by a new
   epoch, before anything is answered.
4. Commit the view's transaction: from here on readers of every process see the batch, and only ever what is durable.
   Take the mark away, let go of the lock, answer.

A death before 3 leaves nothing; during 3 a record that is whole on some mirror is completed by the next holder (see
`mirrors`); between 3 and 4 the next holder applies it from the log. So the view is never ahead of the log, and behind
it by at most the record that the mark speaks of.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import lmdb
import msgspec

from holdfast.core.errors import Ambiguous, Full, HoldfastError, Unavailable
from holdfast.core.ids import DriveId
from holdfast.meta.local.batch import Commit, Outcome, check_and_apply
from holdfast.meta.local.hold import Hold
from holdfast.meta.local.log import Position, encode_payload
from holdfast.meta.local.mirror import Mirror
from holdfast.meta.local.mirrors import NO_ROOM, Failures, MirrorFailed
from holdfast.meta.local.run import APPENDING, CHANGING, CLEAN
from holdfast.meta.local.view import Transaction, abandon
from holdfast.meta.local.views import lacks_room
from holdfast.meta.local.witness import FILE_NAME as WITNESS_NAME
from holdfast.meta.local.witness import Testimony, encode_witness


class Store:
    """Commits to what this process holds. Everything happens under `Run`'s lock, in one thread."""

    def __init__(self, hold: Hold) -> None:
        self.hold = hold
        self._run = hold.run

    # Opening and closing.

    def start(self) -> None:
        """Join the processes that have the store open; if there are none, find what is newest and put it right.

        Raises NotFound when there is no metadata on any drive, Unavailable when what is newest cannot be proven,
        Corrupt when more was lost than the store was made for.
        """
        if self._run.join():
            self.hold.begin()
            return
        self.hold.join()
        try:
            self.follow()
        except Unavailable:
            # Reads go on, and who commits is told why that cannot be.
            if not self.hold.has_view:
                raise

    # What other processes did meanwhile.

    def follow(self) -> None:
        """Catch up with what other processes changed, and settle what one that died left behind."""
        if self.hold.is_behind:
            self.hold.reopen()
        if self._run.dirty == APPENDING:
            try:
                self.hold.roll_forward()
            except MirrorFailed:
                self._run.dirty = CHANGING
            except lmdb.Error as error:
                self._apply_from_log(error)
            if self._run.dirty == APPENDING:
                self._run.dirty = CLEAN
        if self._run.dirty == CHANGING:
            try:
                self.hold.recover(self.hold.state.run)
            except Unavailable as error:
                if not self.hold.state.writable:
                    self.hold.publish(msgspec.structs.replace(self.hold.state, writable=str(error)))
                raise

    # Committing.

    def commit(self, batch: Sequence[Commit]) -> list[Outcome]:
        """Commit what can be; the outcome of each. Raises only what concerns the whole batch, none of it applied.

        Ambiguous is raised when a record may have reached a mirror, and could not be finished.
        """
        self.follow()
        try:
            return self._commit(batch)
        except lmdb.MapFullError:
            # The file system was grown past the addresses that were set aside.
            self.hold.renew_view()
            # Had a mirror failed meanwhile, an epoch without it comes first.
            self.follow()
            return self._commit(batch)
        except lmdb.Error as error:
            self.hold.renew_view()
            raise Unavailable(f"the metadata view had to be made again ({error})") from error

    def _commit(self, batch: Sequence[Commit]) -> list[Outcome]:
        view = self.hold.view
        tight = self._run.tight
        self.hold.care_is_due |= tight
        transaction = view.writing()
        try:
            with self.hold.inside():
                position = view.position(transaction)
                outcomes, accepted = check_and_apply(view, transaction, batch, tight=tight)
                if not accepted:
                    transaction.abort()
                    return outcomes
                # Now, while the batch can still be refused, the page that says where the log stands gets its place.
                view.set_position(transaction, position)
            after = self._append(position, accepted)
        except BaseException:
            abandon(transaction)
            raise
        with self.hold.inside():
            self._finish(transaction, after)
        if position.offset < self.hold.sizes.segment // 2 <= after.offset:
            self._ensure_spare()
        return outcomes

    def _append(self, position: Position, accepted: Sequence[Commit]) -> Position:
        """Make a batch durable on the mirrors; where the log stands then. Raises Full (not done), Ambiguous."""
        payload = encode_payload([(commit.token, commit.changes) for commit in accepted])
        self._run.dirty = APPENDING
        try:
            after, failures = self.hold.mirrors.append(position, payload, self.hold.state.epoch)
        except Full:
            self._run.dirty = CLEAN
            self._run.tight = True
            raise
        if failures:
            self._drop(failures, after)
        if after.segment != position.segment:
            self.hold.care_is_due = True
        return after

    def _ensure_spare(self) -> None:
        """Half a segment is left: if upkeep made no spare meanwhile, and none can be made, keep it for deletions."""
        sizes = self.hold.sizes
        failures = self.hold.mirrors.each(lambda mirror: mirror.prepare(sizes.segment, sizes.reserve))
        if any(error.errno in NO_ROOM for error in failures.values()):
            self._run.tight = True

    def _finish(self, transaction: Transaction, after: Position) -> None:
        """Let readers see a batch that is durable on the mirrors. Raises Ambiguous when that cannot be done now."""
        try:
            self.hold.view.set_position(transaction, after)
            transaction.commit()
        except lmdb.Error as error:
            abandon(transaction)
            try:
                self._apply_from_log(error)
            except (HoldfastError, OSError, lmdb.Error) as failure:
                # The mark stays, and the next holder of the lock tries again.
                raise Ambiguous(f"the commit is in the log, and cannot be brought into view: {failure}") from failure
        if self._run.dirty == APPENDING:
            self._run.dirty = CLEAN

    def _apply_from_log(self, reason: lmdb.Error) -> None:
        """The view could not take a batch that the log holds: make room and apply it again, or make the view anew."""
        if isinstance(reason, lmdb.MapFullError):
            self.hold.renew_view()
            return
        if lacks_room(self.hold.disk, self.hold.view, reason, self.hold.sizes.segment):
            self._run.tight = True
            self.hold.mirrors.each(Mirror.give_up_reserve)
        try:
            self.hold.roll_forward()
        except lmdb.Error:
            self.hold.renew_view()
        except MirrorFailed:
            self._run.dirty = CHANGING
            self.hold.recover(self.hold.state.run)

    def _drop(self, failures: Failures, position: Position) -> None:
        """Go on without the mirrors that failed: a new epoch, before the record that lost them is acknowledged."""
        self._run.dirty = CHANGING
        self.hold.care_is_due = True
        rest = [mirror for mirror in self.hold.mirrors.mirrors if mirror not in failures]
        if not rest:
            raise Ambiguous(f"no mirror of the metadata took the commit: {'; '.join(map(str, failures.values()))}")
        try:
            self.hold.new_epoch(self.hold.hear(), rest, position)
        except Unavailable as error:
            raise Ambiguous(f"a mirror of the metadata was lost, and {error}") from error
        for mirror in failures:
            mirror.close()
        self._run.dirty = APPENDING

    # Changing who is what. Called by `care`, through the committer's thread.

    def testimony(self) -> Testimony:
        """What the drives' witnesses say now."""
        self.follow()
        return self.hold.hear_newest()[0]

    def write_witness(self, drive: DriveId) -> None:
        """Give a drive whose witness is damaged a new one, with the current epoch, which enough others hold."""
        newest = self.hold.hear_newest()[1]
        own = msgspec.structs.replace(newest, drive=drive)
        try:
            self.hold.disk.replace_file(self.hold.paths[drive] / WITNESS_NAME, encode_witness(own))
        except OSError as error:
            raise Unavailable(f"the witness in {self.hold.paths[drive]} cannot be written: {error}") from error

    def retire(self, drives: Sequence[DriveId]) -> None:
        """Go on without some mirrors."""
        self.follow()
        staying = [mirror for mirror in self.hold.mirrors.mirrors if mirror.drive not in drives]
        if not staying:
            raise Unavailable("the last mirror of the metadata cannot be taken out")
        self._change_epoch(staying)

    def add_mirror(self, drive: DriveId, checkpoint: Position) -> None:
        """Take in a mirror that holds a checkpoint: copy the log behind it, then count on it. Raises OSError."""
        self.follow()
        with self.hold.view.reading() as transaction:
            position = self.hold.view.position(transaction)
        mirror = Mirror(self.hold.disk, drive, self.hold.paths[drive])
        source = self.hold.mirrors.mirrors[0]
        for segment in source.segments():
            if checkpoint.segment <= segment <= position.segment:
                self.hold.disk.call(drive, partial(mirror.copy, source, segment))
        if not mirror.confirms(position):
            raise OSError(f"{mirror.path} does not hold the log's last record")
        self._change_epoch([*self.hold.mirrors.mirrors, mirror])

    def set_roster(
        self, drives: Mapping[DriveId, Path], roster: Sequence[DriveId], losses: int, metacopies: int
    ) -> None:
        """Establish an epoch with another roster; mirrors that are not on it end."""
        self.hold.take_in(drives)
        self.follow()
        self.hold.guard()
        staying = [mirror for mirror in self.hold.mirrors.mirrors if mirror.drive in roster]
        self._change_epoch(staying, roster=tuple(roster), losses=losses, metacopies=metacopies)

    def inherit(self, drives: Mapping[DriveId, Path], heirs: Mapping[DriveId, DriveId]) -> None:
        """Establish an epoch in which drives that are lost for good have given their places on the roster to others.

        `drives` says where the heirs are. Works when the metadata is read-only for want of the lost ones.
        """
        self.hold.take_in(drives)
        if self.hold.is_behind:
            self.hold.reopen()
        self.hold.recover(self.hold.state.run, heirs)
        self.hold.guard()

    def _change_epoch(self, mirrors: Sequence[Mirror], **changed: object) -> None:
        with self.hold.view.reading() as transaction:
            position = self.hold.view.position(transaction)
        self._run.dirty = CHANGING
        self.hold.new_epoch(self.hold.hear(), mirrors, position, **changed)
        self._run.dirty = CLEAN

    def replace_view(self, broken: str) -> None:
        """Make the view in directory `broken` again, unless that was done meanwhile."""
        self.follow()
        if self.hold.state.view == broken:
            self.hold.renew_view()
