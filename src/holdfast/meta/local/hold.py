"""What one process holds of a store's metadata: its mirrors and its view; and how they are put right.

Rules. `state`, in the run directory, names what all processes hold; `generation` says when it has changed. Whoever puts
something right establishes an epoch first, so that every later start sees that mirrors were left out, then completes
the log on those that are left, and last tells the others.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import lmdb
import msgspec

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk, File
from holdfast.core.errors import Corrupt, Unavailable
from holdfast.core.ids import DriveId, StoreId
from holdfast.meta.local.bounded import BoundedDisk, DriveThreads, Patience
from holdfast.meta.local.fence import raise_fence
from holdfast.meta.local.log import Position
from holdfast.meta.local.mirror import Mirror, Sizes
from holdfast.meta.local.mirrors import MirrorFailed, MirrorSet
from holdfast.meta.local.run import CHANGING, CLEAN, Run, State
from holdfast.meta.local.view import View, open_view
from holdfast.meta.local.views import (
    build_view,
    discard_view,
    disown_view,
    find_view,
    is_deadly,
    leave_view,
    roll_forward,
)
from holdfast.meta.local.witness import (
    Testimony,
    Witness,
    check_quorum,
    establish,
    hear,
    hear_newest,
    inherited_roster,
    reachable_mirrors,
)


class Hold:
    """A process's hold of a store's metadata. Everything but `close` happens under `Run`'s lock, in one thread."""

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

    @property
    def has_view(self) -> bool:
        """Whether reads are possible."""
        return self._view is not None

    @property
    def is_behind(self) -> bool:
        """Whether another process has changed what all hold."""
        return self.run.generation != self._generation

    def _owners(self) -> dict[Path, DriveId]:
        return {path: drive for drive, path in self.paths.items()}

    def _let_care(self) -> None:
        self.care_is_due = True

    # Opening and closing.

    def begin(self) -> None:
        """Find what is newest and put it right: nobody else has the store open."""
        identity = self.randomness.bytes(16)
        self._raise_fences(identity)
        self.run.tight = False
        try:
            self.recover(identity)
        except Unavailable as error:
            self._open_read_only(identity, error)

    def join(self) -> None:
        """Hold what those hold who have the store open."""
        self.reopen()
        self.guard()
        if not set(self._paths) <= set(map(DriveId, self.state.paths)):
            self.publish(msgspec.structs.replace(self.state, paths=self._path_strings()))

    def take_in(self, drives: Mapping[DriveId, Path]) -> None:
        """Know of more drives."""
        self._paths.update(drives)

    def guard(self) -> None:
        """Keep every drive that is known from being opened by another run."""
        self._raise_fences(self.state.run)

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

    def _raise_fences(self, identity: bytes) -> None:
        for drive, path in self._paths.items():
            if drive not in self._fences:
                fence = raise_fence(self.disk, path, identity)
                if fence is not None:
                    self._fences[drive] = fence

    # What all processes hold.

    def reopen(self) -> None:
        """Hold what `state` names now."""
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
                self.renew_view()
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

    def publish(self, state: State) -> None:
        """Tell every process; this one has it open already."""
        self.run.write_state(state)
        self._state = state
        self._generation = self.run.generation

    def inside(self) -> AbstractContextManager[None]:
        """Marks this thread as being in the view: a death within counts against it."""
        return self.run.attendance.inside(self.view.path.name)

    # Putting right.

    def new_epoch(self, testimony: Testimony, mirrors: Sequence[Mirror], position: Position, **changed: object) -> None:
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
        self.publish(self._state_of(accepted, self.state.run, ""))

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

    def hear(self) -> Testimony:
        """What the drives' witnesses say."""
        return hear(self.disk, self.store, self.paths, self.disk.call_each)

    def hear_newest(self) -> tuple[Testimony, Witness]:
        """As `hear`, and the newest epoch. Raises Unavailable when too few say which that is."""
        return hear_newest(self.disk, self.store, self.paths, self.disk.call_each)

    def _reachable(self, testimony: Testimony, newest: Witness) -> list[Mirror]:
        paths = self.paths
        return [Mirror(self.disk, drive, paths[drive]) for drive in reachable_mirrors(testimony, newest)]

    def recover(self, identity: bytes, heirs: Mapping[DriveId, DriveId] | None = None) -> None:
        """Find the newest epoch, establish the next with the mirrors that there are, and complete the log on them."""
        heirs = heirs or {}
        self.run.dirty = CHANGING
        testimony, newest = self.hear_newest()
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
            testimony, newest = self.hear_newest()
        self.publish(self._state_of(accepted, identity, ""))
        self.run.dirty = CLEAN

    def _complete(self, newest: Witness) -> list[Mirror]:
        """Bring view and mirrors to the log's end; the mirrors with which that did not go."""
        mirrors = self.mirrors.mirrors
        if self._view is None:
            self._view = find_view(self.disk, mirrors, self.run.attendance) or self._build()
        try:
            position = self.roll_forward()
        except MirrorFailed as failure:
            return [failure.mirror]
        except (lmdb.Error, Corrupt):
            # Once more from the checkpoint; if that does not help, it was not the view.
            suspect = self._view
            suspect.close()
            self._view = self._build()
            try:
                position = self.roll_forward()
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
        testimony, newest = self.hear_newest()
        mirrors = self._reachable(testimony, newest)
        self._mirrors = self._mirror_set(mirrors)
        self._view = find_view(self.disk, mirrors, self.run.attendance)
        if self._view is None:
            self._view = self._build()
            try:
                self.roll_forward()
            except MirrorFailed as failure:
                raise reason from failure
        self.publish(self._state_of(newest, identity, str(reason)))

    def _build(self) -> View:
        try:
            return build_view(self.disk, self.randomness, self.store, self.mirrors.mirrors)
        except OSError as error:
            raise Unavailable(f"the metadata view cannot be made: {error}") from error

    def renew_view(self) -> None:
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
        self.publish(msgspec.structs.replace(self.state, view=str(new.path), map_bytes=new.map_bytes))
        if old is not None:
            discard_view(old)

    def _roll_forward_on_what_is_left(self) -> None:
        """As `roll_forward`, leaving out mirrors that fail: each holds all that was acknowledged. Who commits next
        establishes an epoch without them."""
        while True:
            try:
                self.roll_forward()
                return
            except MirrorFailed as failure:
                rest = [mirror for mirror in self.mirrors.mirrors if mirror is not failure.mirror]
                if not rest:
                    raise Unavailable(f"no mirror of the metadata can be read: {failure}") from failure
                self.run.dirty = CHANGING
                self._mirrors = self._mirror_set(rest)

    def roll_forward(self) -> Position:
        """Apply what the log holds behind the view's position; where that leads."""
        with self.inside():
            return roll_forward(self.view, self.mirrors)
