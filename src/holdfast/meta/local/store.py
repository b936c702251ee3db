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
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import lmdb
import msgspec

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk, File
from holdfast.core.errors import (
    Ambiguous,
    Corrupt,
    Full,
    HoldfastError,
    Unavailable,
)
from holdfast.core.ids import DriveId, StoreId
from holdfast.meta.local.batch import Commit, Outcome, check_and_apply
from holdfast.meta.local.bounded import BoundedDisk, DriveThreads, Patience
from holdfast.meta.local.fence import raise_fence
from holdfast.meta.local.log import Position, encode_payload, genesis
from holdfast.meta.local.mirror import Mirror, Sizes
from holdfast.meta.local.mirrors import NO_ROOM, Failures, MirrorFailed, MirrorSet
from holdfast.meta.local.run import APPENDING, CHANGING, CLEAN, Run, State
from holdfast.meta.local.view import Transaction, View, abandon, open_view
from holdfast.meta.local.views import (
    build_view,
    discard_view,
    disown_view,
    find_view,
    is_deadly,
    lacks_room,
    leave_view,
    roll_forward,
)
from holdfast.meta.local.witness import FILE_NAME as WITNESS_NAME
from holdfast.meta.local.witness import (
    Testimony,
    Witness,
    check_quorum,
    encode_witness,
    establish,
    hear,
    hear_newest,
    inherited_roster,
    reachable_mirrors,
)


class Store:
    """One process's hold of a store's metadata. Everything but `close` happens under `Run`'s lock, in one thread."""

    def __init__(
        self,
        drives: Mapping[DriveId, Path],
        *,
        store: StoreId,
        run: Run,
        disk: Disk,
        randomness: Randomness,
        sizes: Sizes,
        patience: Patience,
    ) -> None:
        self.store = store
        self.run = run
        self._threads = DriveThreads(run, self._let_care)
        self.disk = BoundedDisk(disk, self._threads, self._owners, patience.commit)
        self.upkeep_disk = BoundedDisk(disk, self._threads, self._owners, patience.upkeep)
        """The same drives, with more patience."""
        self.randomness = randomness
        self.sizes = sizes
        self._paths = dict(drives)
        self._fences: dict[DriveId, File] = {}
        self._generation = -1
        self._state: State | None = None
        self._view: View | None = None
        self._mirrors: MirrorSet | None = None
        self.care_is_due = True
        """A segment was filled, a mirror lost, or room runs out: whoever sees this lets `care` tend, and clears it."""

    @property
    def state(self) -> State:
        assert self._state is not None
        return self._state

    @property
    def view(self) -> View:
        assert self._view is not None
        return self._view

    @property
    def mirrors(self) -> MirrorSet:
        assert self._mirrors is not None
        return self._mirrors

    @property
    def paths(self) -> dict[DriveId, Path]:
        """Where every drive's metadata directory is, as far as any process has said."""
        shared = {DriveId(drive): Path(path) for drive, path in self._state.paths.items()} if self._state else {}
        return shared | self._paths

    def _owners(self) -> dict[Path, DriveId]:
        return {path: drive for drive, path in self.paths.items()}

    def _let_care(self) -> None:
        self.care_is_due = True

    # Opening and closing.

    def start(self) -> None:
        """Join the processes that have the store open; if there are none, find what is newest and put it right.

        Raises NotFound when there is no metadata on any drive, Unavailable when what is newest cannot be proven,
        Corrupt when more was lost than the store was made for.
        """
        if not self.run.join():
            self._reopen()
            self._fence(self.state.run)
            if not set(self._paths) <= set(map(DriveId, self.state.paths)):
                self._publish(msgspec.structs.replace(self.state, paths=self._path_strings()))
            try:
                self.follow()
            except Unavailable:
                # Reads go on, and who commits is told why that cannot be.
                if self._view is None:
                    raise
            return
        identity = self.randomness.bytes(16)
        self._fence(identity)
        self.run.tight = False
        try:
            self._recover(identity)
        except Unavailable as error:
            self._open_read_only(identity, error)

    def leave(self) -> None:
        """The orderly end: who is the last to leave syncs the view, so that the next start may believe it."""
        if self._view is None or not self.run.is_alone() or self.run.dirty != CLEAN:
            return
        try:
            leave_view(self.disk, self.view)
            self.run.attendance.forget(self.view.path.name)
        except TimeoutError:
            # It is still being synced, and cannot be closed.
            self._view = None

    def close(self) -> None:
        """Let go of everything. No thread uses the store any more."""
        if self._view is not None:
            self._view.close()
        if self._mirrors is not None:
            self._mirrors.close()
        for fence in self._fences.values():
            fence.close()
        self._threads.close()

    def _fence(self, identity: bytes) -> None:
        for drive, path in self._paths.items():
            if drive not in self._fences:
                fence = raise_fence(self.disk, path, identity)
                if fence is not None:
                    self._fences[drive] = fence

    # What other processes did meanwhile.

    def follow(self) -> None:
        """Catch up with what other processes changed, and settle what one that died left behind."""
        if self.run.generation != self._generation:
            self._reopen()
        if self.run.dirty == APPENDING:
            try:
                self._roll_forward()
            except MirrorFailed:
                self.run.dirty = CHANGING
            except lmdb.Error as error:
                self._apply_from_log(error)
            if self.run.dirty == APPENDING:
                self.run.dirty = CLEAN
        if self.run.dirty == CHANGING:
            try:
                self._recover(self.state.run)
            except Unavailable as error:
                if not self.state.writable:
                    self._publish(msgspec.structs.replace(self.state, writable=str(error)))
                raise

    def _reopen(self) -> None:
        generation = self.run.generation
        state = self.run.read_state()
        before = self._state
        self._state = state
        if self._mirrors is not None:
            # Also where the mirrors are the same: whoever put things right may have taken back a segment that is open.
            self._mirrors.close()
        if before is None or before.mirrors != state.mirrors:
            paths = self.paths
            self._mirrors = self._mirror_set(
                [Mirror(self.disk, DriveId(drive), paths[DriveId(drive)]) for drive in state.mirrors]
            )
        if self._view is None or str(self._view.path) != state.view:
            if self._view is not None:
                self._view.close()
                self._view = None
            try:
                self._view = self._open_view(state)
            except lmdb.Error:
                # Its drive was wiped or pulled after it was opened elsewhere; or processes died in it.
                self._renew_view()
                return
        self._generation = generation

    def _open_view(self, state: State) -> View:
        path = Path(state.view)
        if is_deadly(self.run.attendance, path.name):
            raise lmdb.CorruptedError(f"processes died reading {path}")
        with self.run.attendance.inside(path.name):
            return open_view(path, state.map_bytes)

    def _mirror_set(self, mirrors: Sequence[Mirror]) -> MirrorSet:
        return MirrorSet(mirrors, self.disk, self.sizes.segment)

    def _path_strings(self) -> dict[bytes, str]:
        return {drive: str(path) for drive, path in self.paths.items()}

    def _publish(self, state: State) -> None:
        """Tell every process; this one has it open already."""
        self.run.write_state(state)
        self._state = state
        self._generation = self.run.generation

    def _inside(self) -> AbstractContextManager[None]:
        return self.run.attendance.inside(self.view.path.name)

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
            self._renew_view()
            # Had a mirror failed meanwhile, an epoch without it comes first.
            self.follow()
            return self._commit(batch)
        except lmdb.Error as error:
            self._renew_view()
            raise Unavailable(f"the metadata view had to be made again ({error})") from error

    def _commit(self, batch: Sequence[Commit]) -> list[Outcome]:
        view = self.view
        tight = self.run.tight
        self.care_is_due |= tight
        transaction = view.writing()
        try:
            with self._inside():
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
        with self._inside():
            self._finish(transaction, after)
        if position.offset < self.sizes.segment // 2 <= after.offset:
            self._ensure_spare()
        return outcomes

    def _append(self, position: Position, accepted: Sequence[Commit]) -> Position:
        """Make a batch durable on the mirrors; where the log stands then. Raises Full (not done), Ambiguous."""
        payload = encode_payload([(commit.token, commit.changes) for commit in accepted])
        self.run.dirty = APPENDING
        try:
            after, failures = self.mirrors.append(position, payload, self.state.epoch)
        except Full:
            self.run.dirty = CLEAN
            self.run.tight = True
            raise
        if failures:
            self._drop(failures, after)
        if after.segment != position.segment:
            self.care_is_due = True
        return after

    def _ensure_spare(self) -> None:
        """Half a segment is left: if upkeep made no spare meanwhile, and none can be made, keep it for deletions."""

        failures = self.mirrors.each(lambda mirror: mirror.prepare(self.sizes.segment, self.sizes.reserve))
        if any(error.errno in NO_ROOM for error in failures.values()):
            self.run.tight = True

    def _finish(self, transaction: Transaction, after: Position) -> None:
        """Let readers see a batch that is durable on the mirrors. Raises Ambiguous when that cannot be done now."""
        try:
            self.view.set_position(transaction, after)
            transaction.commit()
        except lmdb.Error as error:
            abandon(transaction)
            try:
                self._apply_from_log(error)
            except (HoldfastError, OSError, lmdb.Error) as failure:
                # The mark stays, and the next holder of the lock tries again.
                raise Ambiguous(f"the commit is in the log, and cannot be brought into view: {failure}") from failure
        if self.run.dirty == APPENDING:
            self.run.dirty = CLEAN

    def _apply_from_log(self, reason: lmdb.Error) -> None:
        """The view could not take a batch that the log holds: make room and apply it again, or make the view anew."""
        if isinstance(reason, lmdb.MapFullError):
            self._renew_view()
            return
        if lacks_room(self.disk, self.view, reason, self.sizes.segment):
            self.run.tight = True
            self.mirrors.each(Mirror.give_up_reserve)
        try:
            self._roll_forward()
        except lmdb.Error:
            self._renew_view()
        except MirrorFailed:
            self.run.dirty = CHANGING
            self._recover(self.state.run)

    def _drop(self, failures: Failures, position: Position) -> None:
        """Go on without the mirrors that failed: a new epoch, before the record that lost them is acknowledged."""
        self.run.dirty = CHANGING
        self.care_is_due = True
        rest = [mirror for mirror in self.mirrors.mirrors if mirror not in failures]
        if not rest:
            raise Ambiguous(f"no mirror of the metadata took the commit: {'; '.join(map(str, failures.values()))}")
        try:
            self._new_epoch(self._hear(), rest, position)
        except Unavailable as error:
            raise Ambiguous(f"a mirror of the metadata was lost, and {error}") from error
        for mirror in failures:
            mirror.close()
        self.run.dirty = APPENDING

    # Changing who is what. Called by `care`, through the committer's thread.

    @property
    def genesis(self) -> Position:
        return genesis(self.store)

    def testimony(self) -> Testimony:
        """What the drives' witnesses say now."""
        self.follow()
        return self._hear_newest()[0]

    def write_witness(self, drive: DriveId) -> None:
        """Give a drive whose witness is damaged a new one, with the current epoch, which enough others hold."""
        newest = self._hear_newest()[1]
        own = msgspec.structs.replace(newest, drive=drive)
        try:
            self.disk.replace_file(self.paths[drive] / WITNESS_NAME, encode_witness(own))
        except OSError as error:
            raise Unavailable(f"the witness in {self.paths[drive]} cannot be written: {error}") from error

    def retire(self, drives: Sequence[DriveId]) -> None:
        """Go on without some mirrors."""
        self.follow()
        staying = [mirror for mirror in self.mirrors.mirrors if mirror.drive not in drives]
        if not staying:
            raise Unavailable("the last mirror of the metadata cannot be taken out")
        self._change_epoch(staying)

    def add_mirror(self, drive: DriveId, checkpoint: Position) -> None:
        """Take in a mirror that holds a checkpoint: copy the log behind it, then count on it. Raises OSError."""
        self.follow()
        with self.view.reading() as transaction:
            position = self.view.position(transaction)
        mirror = Mirror(self.disk, drive, self.paths[drive])
        source = self.mirrors.mirrors[0]
        for segment in source.segments():
            if checkpoint.segment <= segment <= position.segment:
                self.disk.call(drive, partial(mirror.copy, source, segment))
        if not mirror.confirms(position):
            raise OSError(f"{mirror.path} does not hold the log's last record")
        self._change_epoch([*self.mirrors.mirrors, mirror])

    def set_roster(
        self, drives: Mapping[DriveId, Path], roster: Sequence[DriveId], losses: int, metacopies: int
    ) -> None:
        """Establish an epoch with another roster; mirrors that are not on it end."""
        self._paths.update(drives)
        self.follow()
        self._fence(self.state.run)
        staying = [mirror for mirror in self.mirrors.mirrors if mirror.drive in roster]
        self._change_epoch(staying, roster=tuple(roster), losses=losses, metacopies=metacopies)

    def inherit(self, drives: Mapping[DriveId, Path], heirs: Mapping[DriveId, DriveId]) -> None:
        """Establish an epoch in which drives that are lost for good have given their places on the roster to others.

        `drives` says where the heirs are. Works when the metadata is read-only for want of the lost ones.
        """
        self._paths.update(drives)
        if self.run.generation != self._generation:
            self._reopen()
        self._recover(self.state.run, heirs)
        self._fence(self.state.run)

    def _change_epoch(self, mirrors: Sequence[Mirror], **changed: object) -> None:
        with self.view.reading() as transaction:
            position = self.view.position(transaction)
        self.run.dirty = CHANGING
        self._new_epoch(self._hear(), mirrors, position, **changed)
        self.run.dirty = CLEAN

    # Putting right.

    def _new_epoch(
        self, testimony: Testimony, mirrors: Sequence[Mirror], position: Position, **changed: object
    ) -> None:
        """Establish an epoch with these mirrors, and publish it."""
        newest = testimony.newest
        check_quorum(testimony, newest)
        proposal = msgspec.structs.replace(
            newest,
            mirrors=tuple(mirror.drive for mirror in mirrors),
            sequence=position.sequence,
            **changed,
        )
        accepted = establish(self.disk, self.paths, testimony, proposal, self.disk.call_each)
        self._mirrors = self._mirror_set(mirrors)
        self._publish(self._state_of(accepted, self.state.run, ""))

    def _state_of(self, witness: Witness, identity: bytes, writable: str) -> State:
        return State(
            run=identity,
            epoch=witness.epoch,
            mirrors=witness.mirrors,
            roster=witness.roster,
            losses=witness.losses,
            metacopies=witness.metacopies,
            paths=self._path_strings(),
            view=str(self.view.path),
            map_bytes=self.view.map_bytes,
            writable=writable,
        )

    def _hear(self) -> Testimony:
        return hear(self.disk, self.store, self.paths, self.disk.call_each)

    def _hear_newest(self) -> tuple[Testimony, Witness]:
        return hear_newest(self.disk, self.store, self.paths, self.disk.call_each)

    def _reachable(self, testimony: Testimony, newest: Witness) -> list[Mirror]:
        paths = self.paths
        return [Mirror(self.disk, drive, paths[drive]) for drive in reachable_mirrors(testimony, newest)]

    def _recover(self, identity: bytes, heirs: Mapping[DriveId, DriveId] | None = None) -> None:
        """Find the newest epoch, establish the next with the mirrors that there are, and complete the log on them."""
        heirs = heirs or {}
        self.run.dirty = CHANGING
        testimony, newest = self._hear_newest()
        mirrors = [mirror for mirror in self._reachable(testimony, newest) if mirror.drive not in heirs]
        if not mirrors:
            raise Unavailable("the last mirror of the metadata cannot be given up")
        roster = inherited_roster(newest, heirs)
        while True:
            # Commits may follow from here on, so first of all this epoch must be the one that every start sees.
            accepted = establish(
                self.disk,
                self.paths,
                testimony,
                msgspec.structs.replace(
                    newest,
                    mirrors=tuple(mirror.drive for mirror in mirrors),
                    roster=roster,
                ),
                self.disk.call_each,
                lost=tuple(heirs),
            )
            if self._mirrors is not None:
                self._mirrors.close()
            self._mirrors = self._mirror_set(mirrors)
            bad = self._complete(newest)
            if not bad:
                break
            mirrors = [mirror for mirror in mirrors if mirror not in bad]
            if not mirrors:
                raise Corrupt("no mirror of the metadata could be read to its end")
            testimony, newest = self._hear_newest()
        self._publish(self._state_of(accepted, identity, ""))
        self.run.dirty = CLEAN

    def _complete(self, newest: Witness) -> list[Mirror]:
        """Bring view and mirrors to the log's end; the mirrors with which that did not go."""
        mirrors = self.mirrors.mirrors
        if self._view is None:
            self._view = find_view(self.disk, mirrors, self.run.attendance) or self._build()
        try:
            position = self._roll_forward()
        except MirrorFailed as failure:
            return [failure.mirror]
        except (lmdb.Error, Corrupt):
            # Once more from the checkpoint; if that does not help, it was not the view.
            suspect = self._view
            suspect.close()
            self._view = self._build()
            try:
                position = self._roll_forward()
            except MirrorFailed as failure:
                return [failure.mirror]
            disown_view(self.disk, suspect)
        if position.sequence < newest.sequence:
            raise Corrupt(
                f"the log ends with record {position.sequence}, and had {newest.sequence}: commits were lost to more"
                " failures than the store was made for; restore the metadata from a backup"
            )
        confirmed = self.disk.call_each({mirror.drive: partial(mirror.confirms, position) for mirror in mirrors})
        bad = [mirror for mirror in mirrors if confirmed[mirror.drive] is not True]
        lacking = [mirror for mirror in mirrors if mirror in self.mirrors.lacking or mirror in bad]
        return lacking if len(lacking) < len(mirrors) else bad

    def _open_read_only(self, identity: bytes, reason: Unavailable) -> None:
        """Serve what is known to be newest although no new epoch can be established. Raises Unavailable, Corrupt."""
        testimony, newest = self._hear_newest()
        mirrors = self._reachable(testimony, newest)
        self._mirrors = self._mirror_set(mirrors)
        self._view = find_view(self.disk, mirrors, self.run.attendance)
        if self._view is None:
            self._view = self._build()
            try:
                self._roll_forward()
            except MirrorFailed as failure:
                raise reason from failure
        self._publish(self._state_of(newest, identity, str(reason)))

    def _build(self) -> View:
        try:
            return build_view(self.disk, self.randomness, self.store, self.mirrors.mirrors)
        except OSError as error:
            raise Unavailable(f"the metadata view cannot be made: {error}") from error

    def _renew_view(self) -> None:
        """Make the view again from checkpoint and log, and move every process to it."""
        old = self._view
        self._view = new = self._build()
        try:
            self._roll_forward_on_what_is_left()
        except BaseException:
            self._view = old
            discard_view(new)
            raise
        if old is not None:
            disown_view(self.disk, old)
        self._publish(msgspec.structs.replace(self.state, view=str(new.path), map_bytes=new.map_bytes))
        if old is not None:
            discard_view(old)

    def _roll_forward_on_what_is_left(self) -> None:
        """As `_roll_forward`, leaving out mirrors that fail: each holds all that was acknowledged. Who commits next
        establishes an epoch without them."""
        while True:
            try:
                self._roll_forward()
                return
            except MirrorFailed as failure:
                rest = [mirror for mirror in self.mirrors.mirrors if mirror is not failure.mirror]
                if not rest:
                    raise Unavailable(f"no mirror of the metadata can be read: {failure}") from failure
                self.run.dirty = CHANGING
                self._mirrors = self._mirror_set(rest)

    def replace_view(self, broken: str) -> None:
        """Make the view in directory `broken` again, unless that was done meanwhile."""
        self.follow()
        if self.state.view == broken:
            self._renew_view()

    def _roll_forward(self) -> Position:
        """Apply what the log holds behind the view's position; where that leads."""
        with self._inside():
            return roll_forward(self.view, self.mirrors)
