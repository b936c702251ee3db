"""Making and opening the embedded engine.

`drives` is every drive of the store, each with its metadata directory (DIR/meta); their order is the order in which
mirrors are chosen. `losses` is m: how many drives may be lost or rot. `metacopies` is how many mirrors there are, and
m + 1 unless set.
"""

from collections.abc import Mapping
from pathlib import Path

from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import AlreadyExists, InvalidRequest, Unavailable
from holdfast.core.ids import DriveId, StoreId
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.log import genesis
from holdfast.meta.local.mirror import Mirror
from holdfast.meta.local.run import Run
from holdfast.meta.local.store import Sizes, Store
from holdfast.meta.local.witness import FILE_NAME, Witness, encode_witness, hear


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
    metacopies = losses + 1 if metacopies is None else metacopies
    if not 0 <= losses < metacopies <= len(drives):
        raise InvalidRequest(
            f"{len(drives)} drives cannot hold {metacopies} copies of the metadata such that {losses} may be lost"
        )
    testimony = hear(disk, store, drives)
    if len(testimony.witnesses) >= len(drives) - losses or any(
        witness.epoch > 1 for witness in testimony.witnesses.values()
    ):
        raise AlreadyExists("these drives hold metadata already")
    mirrors = tuple(drives)[:metacopies]
    try:
        for path in drives.values():
            disk.make_directory(path)
        for drive in mirrors:
            _prepare_mirror(Mirror(disk, drive, drives[drive]), genesis(store).segment, sizes)
        first = Witness(store, b"", 1, 1, mirrors, tuple(drives), losses, metacopies, 0)
        for drive, path in drives.items():
            disk.replace_file(path / FILE_NAME, encode_witness(_of(first, drive)))
    except OSError as error:
        raise Unavailable(f"the metadata cannot be set up: {error}") from error


def _of(witness: Witness, drive: DriveId) -> Witness:
    return Witness(
        witness.store,
        drive,
        witness.promised,
        witness.epoch,
        witness.mirrors,
        witness.roster,
        witness.losses,
        witness.metacopies,
        witness.sequence,
    )


def _prepare_mirror(mirror: Mirror, segment: int, sizes: Sizes) -> None:
    """An empty log: its first segment made of a spare, and the next spare."""
    try:
        mirror.prepare(sizes.segment, sizes.reserve)
        mirror.roll(segment, sizes.segment)
        mirror.prepare(sizes.segment, sizes.reserve)
    finally:
        mirror.close()


async def open_local(
    drives: Mapping[DriveId, Path],
    *,
    store: StoreId,
    run: Path,
    disk: Disk,
    randomness: Randomness,
    sizes: Sizes | None = None,
) -> LocalMeta:
    """Open the metadata that is on these drives; any number of processes may, with the same run directory.

    `run` is on a file system that a boot empties. Drives that are missing are left out of `drives` or given with
    their usual path. Raises NotFound when no drive holds any of it, Unavailable when it cannot be proven that the
    newest commit is here (the message says which drives are missing), Corrupt when more than `losses` were lost.
    """
    shared = Run(run)
    local = LocalMeta(
        Store(drives, store=store, run=shared, disk=disk, randomness=randomness, sizes=sizes or Sizes()), shared
    )
    await local.start()
    return local
