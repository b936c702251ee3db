"""What keeps the engine whole while it runs: spares, checkpoints, lost mirrors, damage at rest, backups.

Rules. One process does this at a time (a lock in the run directory says which); the others go on committing. What
takes long reads a snapshot of the view, or records that can no longer change, without the store's lock; only the last
step of bringing up a mirror, and the change of an epoch, hold it. Everything here can be cut off anywhere and begun
again: files get their name when they are whole, and a mirror counts from its epoch on.
"""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import lmdb

from holdfast.core.errors import AlreadyExists, Corrupt, Full, HoldfastError, InvalidRequest, Unavailable
from holdfast.core.ids import DriveId
from holdfast.meta.local.checkpoint import (
    PREFIX,
    CheckpointReader,
    RawRow,
    checkpoint_name,
    checkpoint_numbers,
    encode_checkpoint,
    write_checkpoint,
    write_checkpoints,
)
from holdfast.meta.local.log import Position, decode_payload, genesis
from holdfast.meta.local.mirror import SEGMENT_PREFIX, Mirror
from holdfast.meta.local.mirrors import NO_ROOM, MirrorFailed, MirrorSet
from holdfast.meta.local.run import State
from holdfast.meta.local.store import Store
from holdfast.meta.local.view import Transaction, View, open_view
from holdfast.meta.local.views import PREFIX as VIEW_PREFIX
from holdfast.meta.local.views import build_view, discard_view
from holdfast.meta.local.witness import FILE_NAME, check_free

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that was not as it should be."""

    drive: DriveId | None
    what: str
    repaired: bool


class UnderLock(Protocol):
    """Has something done by the thread that takes the store's lock, and waits for it."""

    def __call__(self, action: Callable[[], T]) -> T: ...


class Care:
    """The upkeep of one store's metadata, in a thread that is not the committer's."""

    def __init__(self, store: Store, under_lock: UnderLock) -> None:
        self.stopping = False
        self.trouble = ""
        """Why the last `tend` did not end well."""
        self._store = store
        self._hold = store.hold
        self._disk = store.hold.upkeep_disk
        self._run = store.hold.run
        self._under_lock = under_lock

    def tend(self) -> None:
        """Do whatever is due. Nothing when another process is at it, or the store is being closed."""
        try:
            with self._run.caring(wait=False):
                state = self._run.read_state()
                self._prepare(state)
                self._mend(state.metacopies, ())
                state = self._run.read_state()
                if self._log_bytes(state) > self._log_limit(state):
                    self._checkpoint()
        except BlockingIOError:
            return
        except (HoldfastError, OSError, lmdb.Error) as error:
            self.trouble = str(error)
        else:
            self.trouble = ""

    def _rows(self, view: View, transaction: Transaction) -> Iterator[RawRow]:
        """Every row of a snapshot; cut off when the store is being closed."""
        for number, row in enumerate(view.everything(transaction)):
            if self.stopping and number % 1024 == 0:
                raise Unavailable("the metadata is being closed")
            yield row

    # Spares.

    def _prepare(self, state: State) -> None:
        """Make what each mirror needs ahead of time; whether that went everywhere says if there is room to grow."""
        tight = False
        for mirror in self._mirrors(state):
            try:
                mirror.prepare(self._hold.sizes.segment, self._hold.sizes.reserve)
            except OSError as error:
                # Whatever else is wrong with it, `_mend` sees to.
                tight |= error.errno in NO_ROOM
        if self._run.tight != tight:
            self._run.tight = tight

    def _mirrors(self, state: State) -> list[Mirror]:
        """The current mirrors, with files of this thread's own."""
        return [Mirror(self._disk, DriveId(drive), Path(state.paths[drive])) for drive in state.mirrors]

    # Checkpoints.

    def checkpoint(self) -> int:
        """Write a checkpoint to every mirror and drop the log that it makes needless; the sequence that it holds."""
        with self._run.caring():
            return self._checkpoint()

    @contextmanager
    def _snapshot(self) -> Iterator[tuple[State, View, Transaction, Position]]:
        state = self._run.read_state()
        with self._run.attendance.inside(Path(state.view).name):
            view = open_view(Path(state.view), state.map_bytes)
            try:
                with view.reading() as transaction:
                    yield state, view, transaction, view.position(transaction)
            finally:
                view.close()

    def _checkpoint(self) -> int:
        with self._snapshot() as (state, view, transaction, position):
            size = view.used_bytes()
            wanted = [Path(state.paths[drive]) for drive in state.mirrors]
            places = [path for path in wanted if self._has_room(path, size)]
            if not places:
                raise Full("no room for another checkpoint of the metadata")
            blocks = encode_checkpoint(self._hold.store, position, self._rows(view, transaction))
            written = write_checkpoints(self._disk, places, position.sequence, blocks)
        for mirror in self._mirrors(state):
            if mirror.path in written:
                self._prune(mirror)
        if not written:
            raise Unavailable("no mirror of the metadata took a checkpoint")
        return position.sequence

    def _has_room(self, path: Path, size: int) -> bool:
        try:
            return self._disk.space(path).free > size + self._hold.sizes.reserve
        except OSError:
            return False

    def _prune(self, mirror: Mirror) -> None:
        """Keep two checkpoints, and the log behind the older one."""
        try:
            numbers = checkpoint_numbers(self._disk.list_directory(mirror.path))
            for number in numbers[2:]:
                self._disk.unlink(mirror.path / checkpoint_name(number))
            if len(numbers) >= 2:
                mirror.forget_before(numbers[1])
        except OSError:
            # The next checkpoint prunes it, or the mirror is dropped.
            return

    def _newest_checkpoint(self, state: State) -> tuple[int, int]:
        """Sequence and bytes of the newest checkpoint on the first mirror; zeros when there is none."""
        path = Path(state.paths[state.mirrors[0]])
        numbers = checkpoint_numbers(self._disk.list_directory(path))
        if not numbers:
            return 0, 0
        file = self._disk.open(path / checkpoint_name(numbers[0]))
        try:
            return numbers[0], file.size()
        finally:
            file.close()

    def _log_limit(self, state: State) -> int:
        """So that checkpoints write at most as much again as the log did."""
        return max(self._hold.sizes.log, self._newest_checkpoint(state)[1])

    def _log_bytes(self, state: State) -> int:
        """Bytes of log behind the newest checkpoint, to a segment."""
        newest, _ = self._newest_checkpoint(state)
        segments = self._mirrors(state)[0].segments()
        return sum(self._hold.sizes.segment for segment in segments if segment > newest)

    # Mirrors.

    def mend(self) -> list[Finding]:
        """Drop mirrors that are gone, bring up others, see to spares and witnesses."""
        with self._run.caring():
            state = self._run.read_state()
            self._prepare(state)
            return self._mend(state.metacopies, ())

    def _mend(self, metacopies: int, leaving: Sequence[DriveId]) -> list[Finding]:
        findings: list[Finding] = []
        testimony = self._under_lock(self._store.testimony)
        for drive, reason in testimony.silent.items():
            if reason.endswith("is damaged"):
                self._under_lock(partial(self._store.write_witness, drive))
                findings.append(Finding(drive, "its witness was damaged", True))
        state = self._run.read_state()
        gone = [mirror for mirror in self._mirrors(state) if not self._is_there(mirror)]
        if gone and len(gone) < len(state.mirrors):
            self._under_lock(lambda: self._store.retire([mirror.drive for mirror in gone]))
            findings += [Finding(mirror.drive, "its log was gone; it is no mirror any more", True) for mirror in gone]
        state = self._run.read_state()
        staying = [drive for drive in state.mirrors if drive not in leaving]
        for candidate in map(DriveId, state.roster):
            if len(staying) >= metacopies:
                break
            if candidate in state.mirrors or candidate in leaving or candidate not in testimony.witnesses:
                continue
            if self._bring_up(candidate, Path(state.paths[candidate])):
                staying.append(candidate)
                findings.append(Finding(candidate, "it became a mirror", True))
        if len(staying) < metacopies:
            findings.append(Finding(None, f"{len(staying)} of {metacopies} metadata mirrors; add a drive", False))
        state = self._run.read_state()
        if not any(Path(state.view).parent == mirror.path for mirror in self._mirrors(state)):
            self._under_lock(partial(self._store.replace_view, state.view))
        return findings

    def _is_there(self, mirror: Mirror) -> bool:
        """Whether a mirror's directory still has its witness and log: a wiped one takes writes into unlinked files."""
        try:
            return self._disk.exists(mirror.path / FILE_NAME) and bool(mirror.segments())
        except OSError:
            return False

    def _bring_up(self, drive: DriveId, path: Path) -> bool:
        """Make a mirror of a drive: a checkpoint without the lock, then what the log holds behind it under it."""
        try:
            for name in self._disk.list_directory(path):
                if name.startswith((SEGMENT_PREFIX, PREFIX)):
                    self._disk.unlink(path / name)
                elif name.startswith(VIEW_PREFIX):
                    shutil.rmtree(path / name, ignore_errors=True)
            with self._snapshot() as (_, view, transaction, position):
                if not self._has_room(path, view.used_bytes()):
                    return False
                blocks = encode_checkpoint(self._hold.store, position, self._rows(view, transaction))
                if not write_checkpoints(self._disk, [path], position.sequence, blocks):
                    return False
            Mirror(self._disk, drive, path).prepare(self._hold.sizes.segment, self._hold.sizes.reserve)
            self._under_lock(lambda: self._store.add_mirror(drive, position))
        except OSError:
            return False
        return True

    def set_drives(self, drives: Mapping[DriveId, Path], losses: int, metacopies: int | None) -> list[Finding]:
        """Change the roster: first all drives, old and new; then mirrors on those that stay; then without the others.

        Raises InvalidRequest, AlreadyExists (a drive belongs to another store), Unavailable, Full.
        """
        metacopies = losses + 1 if metacopies is None else metacopies
        if not 0 <= losses < metacopies <= len(drives):
            raise InvalidRequest(f"{len(drives)} drives cannot hold {metacopies} copies such that {losses} may be lost")
        with self._run.caring():
            before = self._run.read_state()
            for path in drives.values():
                self._disk.make_directory(path)
            check_free(self._disk, self._hold.store, drives)
            both = dict.fromkeys((*map(DriveId, before.roster), *drives))
            self._under_lock(lambda: self._store.set_roster(drives, tuple(both), before.losses, before.metacopies))
            leaving = [drive for drive in both if drive not in drives]
            findings = self._mend(metacopies, leaving)
            staying = [drive for drive in self._run.read_state().mirrors if drive in drives]
            if len(staying) < metacopies:
                raise Unavailable(f"only {len(staying)} of {metacopies} drives took a mirror of the metadata")
            self._under_lock(lambda: self._store.set_roster(drives, tuple(drives), losses, metacopies))
            self._mend(metacopies, ())
            return findings

    def replace_drives(self, drives: Mapping[DriveId, Path], heirs: Mapping[DriveId, DriveId]) -> list[Finding]:
        """Give the places of drives that are lost for good to others; `drives` says where those are.

        Raises AlreadyExists (a drive belongs to another store), Unavailable.
        """
        with self._run.caring():
            for path in drives.values():
                self._disk.make_directory(path)
            check_free(self._disk, self._hold.store, drives)
            self._under_lock(lambda: self._store.inherit(drives, heirs))
            return self._mend(self._run.read_state().metacopies, ())

    # Damage at rest.

    def verify(self) -> list[Finding]:
        """Read every checkpoint, record and witness of every mirror, make a second view of them, and compare it with
        the view row by row. Repairs what it can: from another mirror, or by what the view holds.
        """
        with self._run.caring():
            findings = self._mend(self._run.read_state().metacopies, ())
            with self._snapshot() as (state, view, transaction, position):
                mirrors = self._mirrors(state)
                findings += self._verify_checkpoints(mirrors)
                whole, damage = self._verify_log(self._starts(mirrors), position)
                findings += damage
                try:
                    differs = whole and not self._view_is_right(mirrors, view, transaction, position)
                except Full as error:
                    differs = False
                    findings.append(Finding(None, f"the view was not compared with the log: {error}", False))
            if differs:
                self._under_lock(partial(self._store.replace_view, state.view))
                findings.append(Finding(None, "the view differed from checkpoint and log; it was made again", True))
            elif not whole:
                findings.append(Finding(None, "records were damaged on every mirror; checkpoints replace them", True))
            if any("checkpoint" in finding.what for finding in findings) or not whole:
                newest = self._checkpoint()
                if not whole:
                    self._forget_checkpoints_before(newest)
            return findings

    def _forget_checkpoints_before(self, sequence: int) -> None:
        """Remove the checkpoints from which the log cannot be followed any more."""
        for mirror in self._mirrors(self._run.read_state()):
            for number in checkpoint_numbers(self._disk.list_directory(mirror.path)):
                if number < sequence:
                    self._disk.unlink(mirror.path / checkpoint_name(number))

    def _verify_checkpoints(self, mirrors: Sequence[Mirror]) -> list[Finding]:
        findings: list[Finding] = []
        for mirror in mirrors:
            for number in checkpoint_numbers(self._disk.list_directory(mirror.path)):
                path = mirror.path / checkpoint_name(number)
                try:
                    read_through(CheckpointReader(self._disk, path))
                except (OSError, Corrupt) as error:
                    self._disk.unlink(path)
                    findings.append(Finding(mirror.drive, f"a checkpoint was damaged ({error})", True))
        return findings

    def _starts(self, mirrors: Sequence[Mirror]) -> dict[Mirror, Position]:
        """From where on each mirror holds the log: from its oldest checkpoint, or from the beginning."""
        starts: dict[Mirror, Position] = {}
        for mirror in mirrors:
            starts[mirror] = genesis(self._hold.store)
            numbers = checkpoint_numbers(self._disk.list_directory(mirror.path))
            if numbers:
                reader = CheckpointReader(self._disk, mirror.path / checkpoint_name(numbers[-1]))
                starts[mirror] = reader.head().position
                reader.close()
        return starts

    def _verify_log(self, starts: Mapping[Mirror, Position], end: Position) -> tuple[bool, list[Finding]]:
        """Whether the chain can be followed to `end`; what was found and patched on the way."""
        found: dict[DriveId, int] = {}
        log = MirrorSet(tuple(starts), self._disk, self._hold.sizes.segment)
        position = min(starts.values(), key=lambda start: start.sequence)
        try:
            while position.sequence < end.sequence:
                holders = [mirror for mirror, start in starts.items() if start.sequence <= position.sequence]
                step = log.patch_next(position, holders)
                if step is None:
                    return False, _log_findings(found)
                position, patched = step
                for mirror in patched:
                    found[mirror.drive] = found.get(mirror.drive, 0) + 1
        except MirrorFailed as failure:
            lost = failure.mirror.drive
            self._under_lock(lambda: self._store.retire([lost]))
            return True, [*_log_findings(found), Finding(lost, "its log cannot be read", True)]
        finally:
            log.close()
        return position == end, _log_findings(found)

    def _view_is_right(self, mirrors: Sequence[Mirror], view: View, transaction: Transaction, end: Position) -> bool:
        """Whether a second view, made of checkpoint and log up to `end`, holds the same rows.

        Raises Full when there is no room for a second one, OSError.
        """
        # The first that takes it has it.
        mirrors = sorted(mirrors, key=lambda mirror: not self._has_room(mirror.path, view.used_bytes()))
        if not self._has_room(mirrors[0].path, view.used_bytes()):
            raise Full("no drive has room for a second one")
        log = MirrorSet(mirrors, self._disk, self._hold.sizes.segment)
        second = build_view(self._disk, self._hold.randomness, self._hold.store, mirrors)
        try:
            try:
                _replay(log, second, end)
            except lmdb.Error as error:
                raise OSError(f"a second view to compare the first with cannot be made: {error}") from error
            with second.reading() as other:
                ours, theirs = self._rows(view, transaction), second.everything(other)
                while True:
                    row = next(ours, None)
                    if row != next(theirs, None):
                        return False
                    if row is None:
                        return True
        except lmdb.Error:
            return False
        finally:
            discard_view(second)
            log.close()

    # Backups.

    def backup(self, path: Path) -> int:
        """Write a checkpoint of this moment to a file of that name; the sequence that it holds."""
        with self._snapshot() as (_, view, transaction, position):
            if self._disk.exists(path):
                raise AlreadyExists(f"{path} is there already")
            blocks = encode_checkpoint(self._hold.store, position, self._rows(view, transaction))
            try:
                write_checkpoint(self._disk, path, blocks)
            except OSError as error:
                raise Unavailable(f"the backup cannot be written: {error}") from error
            return position.sequence


def read_through(reader: CheckpointReader) -> None:
    """Verify a checkpoint to its end. Raises Corrupt, OSError."""
    try:
        reader.head()
        for _ in reader.blocks():
            pass
    finally:
        reader.close()


def _replay(log: MirrorSet, view: View, end: Position) -> None:
    with view.writing() as transaction:
        position = view.position(transaction)
        while position.sequence < end.sequence:
            found = log.next(position)
            if found is None:
                raise Corrupt("the log cannot be followed")
            position, record = found
            for token, changes in decode_payload(record.payload):
                view.apply(transaction, token, changes)
        view.set_position(transaction, position)


def _log_findings(patched: Mapping[DriveId, int]) -> list[Finding]:
    return [Finding(drive, f"{count} records of its log were damaged", True) for drive, count in patched.items()]
