"""Where the view is, whether it may be believed, and how it is made again.

Rules. A view lies in `view-<random>` on a mirror's drive, beside a file `origin`: the mount it was written under, and,
after an orderly end, the position at which it was synced. It is believed while the mount is the same (what a killed
process wrote is still there), or when it still stands where the orderly end left it. Otherwise it is made again from
the newest checkpoint that is whole on any mirror. A view without a position was not finished. A view in which processes
died is not opened again. A death may leave two that can be believed, one of them half-way through the log: the one that
got further counts. One that was found to be wrong loses its origin before another takes its place.
"""

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import lmdb
import msgspec

from holdfast.core.attendance import DEATHS_MAX_COUNT, Attendance
from holdfast.core.clock import Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import Corrupt
from holdfast.core.ids import StoreId
from holdfast.meta.local.bounded import BoundedDisk
from holdfast.meta.local.checkpoint import CheckpointReader, checkpoint_name, checkpoint_numbers
from holdfast.meta.local.log import Position, decode_payload, encode_position, genesis
from holdfast.meta.local.mirror import Mirror, segment_numbers
from holdfast.meta.local.mirrors import MirrorSet
from holdfast.meta.local.view import View, abandon, open_view
from holdfast.meta.local.witness import FILE_NAME as WITNESS_NAME

PREFIX = "view-"
ORIGIN_NAME = "origin"

# The map only takes up addresses. A view is at most as large as its file system, which may be grown while it is open.
_MAP_FACTOR = 4
_MAP_MIN_BYTES = 1 << 36

# Records replayed in one transaction of the view, by the bytes of their payloads.
_REPLAY_BYTES = 8 * 1024 * 1024

# Blocks of a checkpoint that are loaded in one transaction.
_BLOCKS_PER_TRANSACTION = 64


class Origin(msgspec.Struct, array_like=True, frozen=True):
    mount: str
    synced: bytes
    """The encoded position of an orderly end; empty while the view is in use."""


def map_bytes(disk: Disk, path: Path) -> int:
    """Addresses to set aside for a view under `path`."""
    return max(_MAP_MIN_BYTES, _MAP_FACTOR * disk.space(path).total)


def write_origin(disk: Disk, view: Path, synced: bytes) -> None:
    origin = Origin(disk.mount(view), synced)
    disk.replace_file(view / ORIGIN_NAME, msgspec.msgpack.encode(origin))


def leave_view(disk: BoundedDisk, view: View) -> None:
    """The orderly end of the last process: from now on the view may be believed after a reboot, too.

    Raises TimeoutError when the drive does not answer. Whatever else fails only means that the next start makes the
    view again.
    """
    try:
        with view.reading() as transaction:
            position = view.position(transaction)
        disk.call(disk.drive_of(view.path), view.sync)
        write_origin(disk, view.path, encode_position(position))
    except TimeoutError:
        raise
    except (OSError, lmdb.Error, Corrupt):
        return


def find_view(disk: Disk, mirrors: Sequence[Mirror], attendance: Attendance) -> View | None:
    """The view of an earlier run that may be believed, that the log confirms, and that got furthest; the others are
    removed."""
    believed: View | None = None
    furthest = -1
    for mirror in mirrors:
        for name in _names(disk, mirror):
            if not name.startswith(PREFIX):
                continue
            found = None
            if not is_deadly(attendance, name):
                with attendance.inside(name):
                    found = _believable(disk, mirror.path / name, mirrors)
            if found is None or found[1].sequence <= furthest:
                if found is not None:
                    found[0].close()
                attendance.forget(name)
                shutil.rmtree(mirror.path / name, ignore_errors=True)
                continue
            if believed is not None:
                attendance.forget(believed.path.name)
                discard_view(believed)
            believed, furthest = found[0], found[1].sequence
    return believed


def is_deadly(attendance: Attendance, view: str) -> bool:
    """Whether so many processes died in a view that the next would, too."""
    return attendance.deaths(view) >= DEATHS_MAX_COUNT


def _names(disk: Disk, mirror: Mirror) -> list[str]:
    """What a mirror's directory holds; nothing when it cannot be read."""
    try:
        return disk.list_directory(mirror.path)
    except OSError:
        return []


def _believable(disk: Disk, path: Path, mirrors: Sequence[Mirror]) -> tuple[View, Position] | None:
    """The view, and how far it got; None when it may not be believed."""
    try:
        origin = msgspec.msgpack.decode(disk.read_file(path / ORIGIN_NAME), type=Origin)
        same_mount = origin.mount == disk.mount(path)
        if not same_mount and not origin.synced:
            return None
        view = open_view(path, map_bytes(disk, path))
    except (OSError, msgspec.MsgspecError, lmdb.Error):
        return None
    try:
        with view.reading() as transaction:
            position = view.position(transaction)
        if (same_mount or origin.synced == encode_position(position)) and any(
            mirror.confirms(position) for mirror in mirrors
        ):
            write_origin(disk, path, b"")
            return view, position
    except (OSError, Corrupt, lmdb.Error):
        pass
    view.close()
    return None


def build_view(disk: Disk, randomness: Randomness, store: StoreId, mirrors: Sequence[Mirror]) -> View:
    """A new view at the position of the newest checkpoint that is whole on any mirror.

    It lies on the first mirror that takes it, and never where a drive was wiped or pulled: what is left there may be
    an empty mount point. Raises Corrupt when no checkpoint is whole and the log's beginning is
    gone, OSError when no mirror takes a view.
    """
    failure: Exception | None = None
    mirrors = [mirror for mirror in mirrors if WITNESS_NAME in _names(disk, mirror)]
    for mirror in mirrors:
        path = mirror.path / f"{PREFIX}{randomness.bytes(8).hex()}"
        try:
            disk.make_directory(path)
            view = open_view(path, map_bytes(disk, mirror.path), create=True)
        except (OSError, lmdb.Error) as error:
            failure = error
            continue
        try:
            position = _load(disk, store, view, mirrors)
            with view.writing() as transaction:
                view.set_position(transaction, position)
            write_origin(disk, path, b"")
        except (OSError, lmdb.Error) as error:
            failure = error
            discard_view(view)
        except Corrupt:
            discard_view(view)
            raise
        else:
            return view
    raise OSError(f"no mirror takes a view: {failure}") from failure


def lacks_room(disk: Disk, view: View, error: lmdb.Error, needed: int) -> bool:
    """Whether a view failed because its disk is full. Of a write that was cut short LMDB says EIO, as of a dead one."""
    if isinstance(error, lmdb.DiskError):
        return True
    try:
        return disk.space(view.path).free < needed
    except OSError:
        return False


def disown_view(disk: Disk, view: View) -> None:
    """Have no start believe a view again: who puts another in its place may die before it is removed."""
    with suppress(OSError):
        disk.unlink(view.path / ORIGIN_NAME)


def discard_view(view: View) -> None:
    """Close a view and remove it; processes that still read it keep what they mapped."""
    view.close()
    shutil.rmtree(view.path, ignore_errors=True)


def _load(disk: Disk, store: StoreId, view: View, mirrors: Sequence[Mirror]) -> Position:
    """Fill an empty view from the best checkpoint; the checkpoint's position."""
    candidates: list[tuple[int, Path]] = []
    for mirror in mirrors:
        numbers = checkpoint_numbers(_names(disk, mirror))
        candidates.extend((number, mirror.path / checkpoint_name(number)) for number in numbers)
    for _, path in sorted(candidates, key=lambda candidate: -candidate[0]):
        try:
            return load_checkpoint(disk, store, view, path)
        except (OSError, Corrupt):
            view.empty()
    if any(1 in segment_numbers(_names(disk, mirror)) for mirror in mirrors):
        return genesis(store)
    raise Corrupt(
        "no checkpoint of the metadata is whole on any mirror, and the log no longer reaches back to its beginning:"
        " restore the metadata from a backup"
    )


def load_checkpoint(disk: Disk, store: StoreId, view: View, path: Path) -> Position:
    """Fill an empty view from one checkpoint. Raises Corrupt, with the view half full, OSError."""
    reader = CheckpointReader(disk, path)
    try:
        head = reader.head()
        if head.store != store:
            raise Corrupt(f"{path} belongs to another store")
        transaction = view.writing()
        try:
            for number, rows in enumerate(reader.blocks(), 1):
                view.load(transaction, rows)
                if number % _BLOCKS_PER_TRANSACTION == 0:
                    transaction.commit()
                    transaction = view.writing()
            transaction.commit()
        except BaseException:
            abandon(transaction)
            raise
    finally:
        reader.close()
    return head.position


def roll_forward(view: View, log: MirrorSet) -> Position:
    """Apply what the log holds behind the view's position; where that leads. Raises as `MirrorSet.roll_forward`."""
    transaction = view.writing()
    try:
        position = view.position(transaction)
        pending = 0
        for after, record in log.roll_forward(position):
            position = after
            for token, changes in decode_payload(record.payload):
                view.apply(transaction, token, changes)
            pending += record.length
            if pending >= _REPLAY_BYTES:
                view.set_position(transaction, position)
                transaction.commit()
                transaction = view.writing()
                pending = 0
        view.set_position(transaction, position)
        transaction.commit()
    except BaseException:
        abandon(transaction)
        raise
    return position
