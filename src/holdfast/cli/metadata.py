"""`metadata backup` of a live store, and `metadata restore` into one that is stopped.

A restore brings back the rows of the backup's moment; the blocks that they name are where they were, unless they were
deleted since. So what is deleted is kept for the grace: any younger backup restores whole. What an older one cannot
bring back is named, object by object.

The restored metadata is made beside the old and takes its place by renames, with an epoch above every older one. While
it does, a marker on each drive keeps the store from being opened, and keeps the keyring of today: cut off anywhere, the
same command begins again.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from holdfast.cli.affected import affected_objects
from holdfast.cli.opening import (
    META_NAME,
    RESTORING_NAME,
    OpenStore,
    find_store,
    open_metadata,
    open_store,
    run_directory,
)
from holdfast.cli.output import Output, count, listed
from holdfast.cli.settings import Settings, default_code
from holdfast.cli.site import Site
from holdfast.cli.system import SystemRandomness
from holdfast.cli.upkeep import chores_of
from holdfast.core.disk import Disk
from holdfast.core.errors import AccessDenied, HoldfastError, InvalidRequest, Unavailable
from holdfast.core.ids import ContentId, DriveId, new_token
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Put
from holdfast.meta.local.checkpoint import CheckpointReader
from holdfast.meta.local.fence import raise_fence
from holdfast.meta.local.run import Run
from holdfast.meta.local.setup import FIRST_EPOCH, restore_local
from holdfast.meta.local.witness import Testimony, Witness, hear
from holdfast.objects.rows import KEYRING
from holdfast.upkeep.fsck import Trouble, fsck

NEW_NAME = "meta.new"
OLD_NAME = "meta.old"

# A drive that is away may have seen some epochs more than those that are here: each is one lost or mended mirror.
EPOCHS_UNSEEN_MAX = 1_000_000


async def backup(opened: OpenStore, output: Output, path: Path) -> bool:
    """Write this moment's metadata to a new file."""
    try:
        sequence = await opened.local.backup(path)
    except OSError as error:
        raise AccessDenied(f"{path}: {error.strerror}") from None
    output.say(f"metadata as of commit {sequence} written to {path}, sealed under the store's keyring")
    output.document({"path": str(path), "sequence": sequence})
    return True


async def restore(settings: Settings, output: Output, path: Path, *, force: bool) -> bool:
    """Put a backup's metadata in the place of a stopped store's; whether everything in it can be read."""
    disk, randomness = OsDisk(), SystemRandomness()
    site = find_store(settings, disk)
    if site.absent and not force:
        missing = listed([str(place) for place in site.absent.values()])
        raise InvalidRequest(f"missing: {missing}; bring every drive, or --force to restore without")
    _check_backup(disk, path, site)
    keyring = await _present_keyring(settings, site, disk)
    run = Run(run_directory(settings, site))
    lock = run.new_lock()
    try:
        with lock:
            if not run.join():
                raise Unavailable("the store is open: stop the server, and every command on it, first")
            _replace(path, site, disk, randomness.bytes(16), keyring)
    finally:
        lock.close()
        run.close()
    if keyring:
        # The keys of today open what was sealed then, and today's key-encryption key opens them.
        async with await open_metadata(settings, find_store(settings, disk), disk, randomness) as local:
            await local.commit([Put(KEYRING, keyring)], token=new_token(randomness))
    for drive in site.drives.values():
        disk.unlink(drive / RESTORING_NAME)
        disk.sync_directory(drive)
    async with open_store(settings) as opened:
        return await _check(opened, output, path)


def _check_backup(disk: Disk, path: Path, site: Site) -> None:
    """Raises InvalidRequest, AccessDenied, Corrupt."""
    try:
        reader = CheckpointReader(disk, path)
    except OSError as error:
        raise AccessDenied(f"{path}: {error.strerror}") from None
    try:
        store = reader.head().store
    finally:
        reader.close()
    if store != site.store:
        raise InvalidRequest(f"{path} is of store {store.hex()}, these drives are of {site.store.hex()}")


async def _present_keyring(settings: Settings, site: Site, disk: Disk) -> bytes:
    """The keyring as it is wrapped now, if the metadata can still be read, or could when this was begun; else empty."""
    for drive in site.drives.values():
        if disk.exists(drive / RESTORING_NAME):
            return disk.read_file(drive / RESTORING_NAME)
    try:
        async with await open_metadata(settings, site, disk, SystemRandomness()) as local:
            return (await local.get(KEYRING)).value
    except HoldfastError:
        return b""


def _replace(path: Path, site: Site, disk: Disk, identity: bytes, keyring: bytes) -> None:
    """Make the restored metadata on every drive, and put it in place. Nobody else has the store open."""
    fences = [raise_fence(disk, drive / META_NAME, identity) for drive in site.drives.values()]
    try:
        heard = [_hear(disk, site, name) for name in (META_NAME, OLD_NAME, NEW_NAME)]
        epochs = [max(witness.promised, witness.epoch) for each in heard for witness in each.witnesses.values()]
        losses, metacopies = _protection(heard[0], len(site.drives))
        new = _inside(site.drives, NEW_NAME)
        for directory in new.values():
            shutil.rmtree(directory, ignore_errors=True)
        restore_local(
            path,
            new,
            store=site.store,
            losses=losses,
            metacopies=metacopies,
            disk=disk,
            epoch=max(epochs) + EPOCHS_UNSEEN_MAX if epochs else FIRST_EPOCH,
        )
        for drive in site.drives.values():
            disk.replace_file(drive / RESTORING_NAME, keyring)
        for drive in site.drives.values():
            _swap(disk, drive)
        for directory in _inside(site.drives, OLD_NAME).values():
            shutil.rmtree(directory, ignore_errors=True)
    except OSError as error:
        raise Unavailable(f"the metadata cannot be restored: {error}; put that right and restore again") from error
    finally:
        for fence in fences:
            if fence is not None:
                fence.close()


def _inside(drives: Mapping[DriveId, Path], name: str) -> dict[DriveId, Path]:
    return {drive: path / name for drive, path in drives.items()}


def _hear(disk: Disk, site: Site, name: str) -> Testimony:
    return hear(disk, site.store, _inside(site.drives, name))


def _protection(testimony: Testimony, drives: int) -> tuple[int, int]:
    """How many losses and mirrors: as before if any drive remembers, else as a new store has."""
    newest: Witness | None = testimony.newest if testimony.witnesses else None
    losses = min(newest.losses if newest else default_code(drives).m, drives - 1)
    return losses, min(max(newest.metacopies if newest else 0, losses + 1), drives)


def _swap(disk: Disk, drive: Path) -> None:
    shutil.rmtree(drive / OLD_NAME, ignore_errors=True)
    if disk.exists(drive / META_NAME):
        disk.rename(drive / META_NAME, drive / OLD_NAME)
    disk.rename(drive / NEW_NAME, drive / META_NAME)
    disk.sync_directory(drive)


async def _check(opened: OpenStore, output: Output, path: Path) -> bool:
    """Look for every block that the restored rows name; tell repair of what lacks fragments; name what is gone."""
    chores = chores_of(opened)
    lost: set[ContentId] = set()
    blocks = 0
    with output.progress("looking for every block") as progress:
        async for finding in fsck(chores.catalogue, opened.drives, chores.layouts, chores.open_tag, repair=True):
            progress.at(blocks := blocks + 1)
            if finding.trouble in (Trouble.LOST, Trouble.UNREAD) and finding.content is not None:
                lost.add(finding.content)
    objects = await affected_objects(opened, lost) if lost else []
    known = {entry.id for entry in opened.layout.drives}
    strangers = [str(drive.directory) for drive in opened.drives.values() if drive.id not in known]
    output.say(f"the metadata of {path} is in place")
    for name in objects:
        output.say(f"cannot be brought back, its blocks were deleted since: {name}")
    if objects:
        output.say(f"{count(len(objects), 'object')} cannot be brought back; everything else is whole")
    else:
        output.say("every block that it names is there")
    for stranger in strangers:
        output.say(f"{stranger} was added after the backup was made: `holdfast drive add` takes it in again")
    output.document({"lost": objects, "drives_to_add": strangers})
    return not objects
