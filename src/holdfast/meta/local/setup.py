"""Making and opening the embedded engine.

`drives` is every drive of the store, each with its metadata directory (DIR/meta); their order is the order in which
mirrors are chosen. `losses` is m: how many drives may be lost or rot. `metacopies` is how many mirrors there are, and
m + 1 unless set.
"""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import AlreadyExists, Full, InvalidRequest, Unavailable
from holdfast.core.ids import DriveId, StoreId
from holdfast.meta.local.bounded import Patience
from holdfast.meta.local.care import read_through
from holdfast.meta.local.checkpoint import CheckpointReader, encode_checkpoint, write_checkpoints
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.hold import Hold
from holdfast.meta.local.log import Position, genesis
from holdfast.meta.local.mirror import Mirror, Sizes
from holdfast.meta.local.run import Run
from holdfast.meta.local.store import Store
from holdfast.meta.local.witness import FILE_NAME, Witness, encode_witness, hear

FIRST_EPOCH = 1


def create_local(
    drives: Mapping[DriveId, Path],
    *,
    store: StoreId,
    losses: int,
    metacopies: int | None = None,
    disk: Disk,
    sizes: Sizes | None = None,
) -> None:
    """Write an empty map's first mirrors and witnesses. Blocks.

    Called again after a crash in the middle, it ends what was begun. Raises AlreadyExists when the drives hold
    metadata already, InvalidRequest when there are fewer drives than mirrors, Full, Unavailable (a drive failed).
    """
    sizes = sizes or Sizes()
    chosen = _choose(drives, store, losses, metacopies, disk)
    try:
        for path in drives.values():
            disk.make_directory(path)
        _write_first(drives, chosen, genesis(store), disk, sizes)
    except OSError as error:
        raise Unavailable(f"the metadata cannot be set up: {error}") from error


def _choose(
    drives: Mapping[DriveId, Path],
    store: StoreId,
    losses: int,
    metacopies: int | None,
    disk: Disk,
    epoch: int = FIRST_EPOCH,
) -> Witness:
    """The first epoch of a new store on these drives. Raises InvalidRequest, AlreadyExists."""
    metacopies = losses + 1 if metacopies is None else metacopies
    if not 0 <= losses < metacopies <= len(drives):
        raise InvalidRequest(
            f"{len(drives)} drives cannot hold {metacopies} copies of the metadata such that {losses} may be lost"
        )
    testimony = hear(disk, store, drives)
    begun = len(testimony.witnesses) < len(drives) - losses and all(
        witness.epoch <= FIRST_EPOCH for witness in testimony.witnesses.values()
    )
    if not begun or any("belongs to" in reason for reason in testimony.silent.values()):
        raise AlreadyExists("these drives hold metadata already")
    mirrors = tuple(drives)[:metacopies]
    return Witness(store, b"", epoch, epoch, mirrors, tuple(drives), losses, metacopies, 0)


def _write_first(drives: Mapping[DriveId, Path], chosen: Witness, start: Position, disk: Disk, sizes: Sizes) -> None:
    """Logs that go on from `start`, and then the witnesses that make them count."""
    for drive in chosen.mirrors:
        _prepare_mirror(Mirror(disk, DriveId(drive), drives[DriveId(drive)]), start.segment, sizes)
    for drive, path in drives.items():
        own = msgspec.structs.replace(chosen, drive=drive, sequence=start.sequence)
        disk.replace_file(path / FILE_NAME, encode_witness(own))


def _prepare_mirror(mirror: Mirror, segment: int, sizes: Sizes) -> None:
    """An empty log: its first segment made of a spare, and the next spare."""
    try:
        mirror.prepare(sizes.segment, sizes.reserve)
        mirror.roll(segment, sizes.segment)
        mirror.prepare(sizes.segment, sizes.reserve)
    finally:
        mirror.close()


def restore_local(
    backup: Path,
    drives: Mapping[DriveId, Path],
    *,
    store: StoreId,
    losses: int,
    metacopies: int | None = None,
    disk: Disk,
    sizes: Sizes | None = None,
    epoch: int = FIRST_EPOCH,
) -> None:
    """Make new mirrors and witnesses that hold what a backup holds. Blocks.

    `epoch` is above every one of the store's that there may be on any drive, so that what is restored is the newest.
    Raises as `create_local` does, and Corrupt, with nothing made, when the backup is damaged.
    """
    sizes = sizes or Sizes()
    chosen = _choose(drives, store, losses, metacopies, disk, epoch)
    try:
        read_through(CheckpointReader(disk, backup))
        reader = CheckpointReader(disk, backup)
        try:
            held = reader.head().position
            start = Position(held.sequence + 1, 0, 0, held.sequence, held.hash)
            rows = (row for block in reader.blocks() for row in block)
            for path in drives.values():
                disk.make_directory(path)
            wanted = [drives[DriveId(drive)] for drive in chosen.mirrors]
            written = write_checkpoints(disk, wanted, start.sequence, encode_checkpoint(store, start, rows))
        finally:
            reader.close()
        if len(written) < len(wanted):
            raise Full("no room for the metadata on every drive that shall hold it")
        _write_first(drives, chosen, start, disk, sizes)
    except OSError as error:
        raise Unavailable(f"the metadata cannot be restored: {error}") from error


async def open_local(
    drives: Mapping[DriveId, Path],
    *,
    store: StoreId,
    run: Path,
    disk: Disk,
    randomness: Randomness,
    sizes: Sizes | None = None,
    patience: Patience | None = None,
) -> LocalMeta:
    """Open the metadata that is on these drives; any number of processes may, with the same run directory.

    `run` is on a file system that a boot empties. Drives that are missing are left out of `drives` or given with
    their usual path. Raises NotFound when no drive holds any of it, Unavailable when it cannot be proven that the
    newest commit is here (the message says which drives are missing), Corrupt when more than `losses` were lost.
    """
    shared = Run(run)
    hold = Hold(
        drives,
        store=store,
        run=shared,
        disk=disk,
        randomness=randomness,
        sizes=sizes or Sizes(),
        patience=patience or Patience(),
    )
    local = LocalMeta(Store(hold), shared)
    await local.start()
    return local
