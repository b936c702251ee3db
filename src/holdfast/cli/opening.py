"""Making a store and opening it: where the parts are put together.

Every process that works on a store goes through `open_store`: workers, upkeep, each command. It reads like a recipe,
from the directories up to the product's API, and closes in the opposite order.
"""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from holdfast.cli.accounts import Accounts
from holdfast.cli.attaching import Attachments
from holdfast.cli.catalogue import RowCatalogue
from holdfast.cli.damage import DamageReports
from holdfast.cli.keys import HeldKeys, KeySources, write_kek
from holdfast.cli.kms import Kms
from holdfast.cli.settings import Settings
from holdfast.cli.site import Site, begin, finish, survey, undo_unfinished, write_places
from holdfast.cli.system import SystemClock, SystemRandomness, allow_many_files
from holdfast.cluster import Cluster
from holdfast.core.clock import Clock, Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import (
    AccessDenied,
    HoldfastError,
    InvalidRequest,
    NodeDown,
    NotEnoughFragments,
    Unavailable,
)
from holdfast.core.ids import DriveId, new_token
from holdfast.core.limits import MIB
from holdfast.crypto.kek import new_kek, wrap_keyring
from holdfast.crypto.keyring import Keyring, Purpose, new_keyring
from holdfast.drives.buffers import BufferPool
from holdfast.drives.directory import DirectoryDrive
from holdfast.drives.identity import IDENTITY_NAME
from holdfast.drives.os_disk import OsDisk
from holdfast.drives.relaxed_disk import RelaxedDisk
from holdfast.erasure import Code
from holdfast.meta.interface import Meta, Put
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.setup import create_local, open_local
from holdfast.meta.sealed import RowKeys, SealedMeta
from holdfast.objects.contents import ContentKeys, Contents
from holdfast.objects.layouts import Layouts
from holdfast.objects.rows import KEYRING, layout_row_key
from holdfast.objects.sessions import Sessions
from holdfast.objects.store import Store, StoreParts
from holdfast.placement import Layout, LayoutDrive, State, encode_layout, first_layout
from holdfast.tree import SealingThreads

# The unit of S3 objects: large enough that a fragment of a wide code is worth a disk access, small enough that a few
# in flight for each upload fit in memory.
BLOCK_BYTES = 1 * MIB

META_NAME = "meta"

RESTORING_NAME = "meta.restoring"
"""On a drive: a metadata restore is under way, and until it ends the metadata may be of two histories."""

# Every process of a store meets here. The name follows from the store alone, so that none can miss the others.
RUN_ROOT = Path("/dev/shm")  # noqa: S108  a tmpfs on every Linux; ownership is checked

# A drive that came back, or a layout that another process made, is noticed within this.
WATCH_SECONDS = 1.0

# The one node of a store that lives on one machine.
NODE_NAME = "local"

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class OpenStore:
    """A store, as one process has it open."""

    settings: Settings
    site: Site
    run: Path
    disk: Disk
    clock: Clock
    randomness: Randomness
    local: LocalMeta
    meta: SealedMeta
    keys: HeldKeys
    attachments: Attachments
    layouts: Layouts
    cluster: Cluster
    contents: Contents
    store: Store
    accounts: Accounts
    layout: Layout
    """The newest, as of the last look."""
    code: Code
    """What new objects are coded with."""
    changes: int = 0
    """Counts what upkeep's workers have to be made anew for: drives that came or went, and keyrings."""

    @property
    def keyring(self) -> Keyring:
        return self.keys.keyring

    @property
    def drives(self) -> dict[DriveId, DirectoryDrive]:
        """Those that are open now."""
        return self.attachments.drives


def make_store(settings: Settings, disk: Disk, randomness: Randomness, clock: Clock) -> None:
    """Make a new store in empty directories. Cut off anywhere, the next call begins again. Blocks."""
    directories = settings.drives
    code = settings.chosen_code(len(directories))
    metacopies = settings.metacopies
    site = begin(disk, randomness, directories)
    metadata = {drive: path / META_NAME for drive, path in site.drives.items()}
    losses = code.m if metacopies is None else min(code.m, metacopies - 1)
    create_local(metadata, store=site.store, losses=losses, metacopies=metacopies, disk=disk)
    asyncio.run(_write_first_rows(settings, site, disk, randomness))
    write_places(disk, site.drives.values(), site.drives)
    finish(disk, directories)


async def _write_first_rows(settings: Settings, site: Site, disk: Disk, randomness: Randomness) -> None:
    keyring = new_keyring(site.store, randomness)
    kek = new_kek(randomness)
    layout = first_layout(
        LayoutDrive(drive, max(1, disk.space(path).total), NODE_NAME) for drive, path in site.drives.items()
    )
    async with await open_metadata(settings, site, disk, randomness) as local:
        await local.commit([Put(KEYRING, wrap_keyring(keyring, kek, randomness))], token=new_token(randomness))
        sealed = SealedMeta(local, RowKeys.of(keyring, randomness), plain_prefixes=[KEYRING])
        await sealed.commit([Put(layout_row_key(1), encode_layout(layout))], token=new_token(randomness))
    write_kek(disk, site.drives.values(), kek)


def find_or_make(settings: Settings, disk: Disk, randomness: Randomness, clock: Clock) -> tuple[Site, bool]:
    """The store in these directories, made now if they are all empty; and whether it was. Blocks."""
    undo_unfinished(disk, settings.drives)
    site = survey(disk, settings.drives)
    if site is not None:
        write_places(disk, site.drives.values(), site.places)
        return site, False
    make_store(settings, disk, randomness, clock)
    made = survey(disk, settings.drives)
    assert made is not None
    return made, True


@asynccontextmanager
async def open_store(settings: Settings, buffers: BufferPool | None = None) -> AsyncIterator[OpenStore]:
    """The store in the directories of `settings`, for as long as the context lasts. Drives read into `buffers`.

    Raises NodeDown when none of them is a drive, and what opening the parts raises.
    """
    allow_many_files()
    clock, randomness = SystemClock(), SystemRandomness()
    disk: Disk = OsDisk() if settings.sync == "strict" else RelaxedDisk(OsDisk())
    site = find_store(settings, disk)
    _check_restored(site, disk)
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(await open_metadata(settings, site, disk, randomness))
        keys = await HeldKeys.open(local, key_sources(settings, site, disk))

        async def reload() -> RowKeys:
            await keys.follow(local)
            return RowKeys.of(keys.keyring, randomness)

        meta = SealedMeta(local, RowKeys.of(keys.keyring, randomness), plain_prefixes=[KEYRING], reload=reload)
        layouts = Layouts(meta, randomness)
        live = await _live(layouts)
        attachments = Attachments(site, settings.drives, disk, randomness, clock, local.attendance, buffers)
        stack.push_async_callback(attachments.close)
        attachments.gone = gone_drives(live[0])
        await attachments.look()
        damage = DamageReports(attachments.drives, keys, clock)
        cluster = Cluster(attachments.drives, live, clock=clock, on_damage=damage.note)
        sessions = Sessions(meta, clock, randomness, host=socket.gethostname(), process=os.getpid())
        stack.push_async_callback(sessions.close)
        code = settings.chosen_code(len(live[0].active))
        contents = _open_contents(stack, meta, cluster, layouts, sessions, keys.keyring, code, clock, randomness)
        hashing = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hash")
        stack.callback(hashing.shutdown, wait=False)
        accounts = Accounts(meta, clock, randomness)
        stack.push_async_callback(accounts.close)
        opened = OpenStore(
            settings=settings,
            site=site,
            run=run_directory(settings, site),
            disk=disk,
            clock=clock,
            randomness=randomness,
            local=local,
            meta=meta,
            keys=keys,
            attachments=attachments,
            layouts=layouts,
            cluster=cluster,
            contents=contents,
            store=Store(StoreParts(meta, contents, sessions, clock, randomness, hashing, BLOCK_BYTES)),
            accounts=accounts,
            layout=live[0],
            code=code,
        )
        keys.changed = partial(_use_keyring, opened)
        catalogue = RowCatalogue(meta, contents, keys.keyring.tag_sealer(randomness), clock, randomness)
        for watch in (_watch_rows(opened), _watch_drives(opened), damage.run(catalogue)):
            stack.push_async_callback(_stop, asyncio.create_task(watch, name="watch"))
        yield opened


def _open_contents(
    stack: AsyncExitStack,
    meta: Meta,
    cluster: Cluster,
    layouts: Layouts,
    sessions: Sessions,
    keyring: Keyring,
    code: Code,
    clock: Clock,
    randomness: Randomness,
) -> Contents:
    sealing = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="seal")
    stack.callback(sealing.shutdown, wait=False)
    threads = SealingThreads(sealing, randomness)
    return Contents(meta, cluster, layouts, sessions, _content_keys(keyring, randomness), threads, code, clock)


def _content_keys(keyring: Keyring, randomness: Randomness) -> ContentKeys:
    return ContentKeys(
        read_sealer=keyring.sealer(Purpose.READ, randomness),
        read_opener=keyring.opener(Purpose.READ),
        walk_sealer=keyring.sealer(Purpose.WALK, randomness),
        walk_opener=keyring.opener(Purpose.WALK),
        tags=keyring.tag_sealer(randomness),
    )


def _use_keyring(opened: OpenStore) -> None:
    """The keyring was rotated: seal with its newest epoch, open with any."""
    opened.meta.use(RowKeys.of(opened.keyring, opened.randomness))
    opened.contents.use_keys(_content_keys(opened.keyring, opened.randomness))
    opened.changes += 1


def find_store(settings: Settings, disk: Disk) -> Site:
    """Where the store's drives are. Raises NodeDown when no directory holds one. Blocks."""
    site = survey(disk, settings.drives)
    if site is None:
        raise NodeDown(
            f"{settings.drives[0]} is no Holdfast drive: mount the disk that belongs there, or make a store with "
            "`holdfast serve DIR...`"
        )
    return site


def _check_restored(site: Site, disk: Disk) -> None:
    for path in site.drives.values():
        if disk.exists(path / RESTORING_NAME):
            raise Unavailable(f"a metadata restore was cut off ({path / RESTORING_NAME}): give the same command again")


async def open_metadata(settings: Settings, site: Site, disk: Disk, randomness: Randomness) -> LocalMeta:
    metadata = {drive: path / META_NAME for drive, path in site.places.items()}
    run = run_directory(settings, site)
    return await open_local(metadata, store=site.store, run=run, disk=disk, randomness=randomness)


def key_sources(settings: Settings, site: Site, disk: Disk) -> KeySources:
    kms = None
    if settings.kms is not None and settings.kms_token_file is not None:
        kms = Kms(settings.kms, settings.kms_token_file)
    return KeySources(disk, tuple(site.drives.values()), settings.kek_file, settings.passphrase_file, kms)


def run_directory(settings: Settings, site: Site) -> Path:
    """Where the processes of this store meet. Raises AccessDenied for one that somebody else made: it could be used to
    mislead this process."""
    run = settings.run_dir or RUN_ROOT / f"holdfast-{site.store.hex()}"
    _check_owner(run, next(iter(site.drives.values())))
    return run


def _check_owner(run: Path, drive: Path) -> None:
    try:
        found = run.lstat()
    except FileNotFoundError:
        return
    owner = (drive / IDENTITY_NAME).stat().st_uid
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (owner, os.getuid()) or found.st_mode & 0o077:
        raise AccessDenied(f"{run} does not belong to the owner of {drive} alone: remove it and start again")


async def check_ready(opened: OpenStore) -> None:
    """Requests can be served: metadata answers, and enough drives are there to read from. Raises Unavailable.

    A store that can only be read is ready: whoever writes is told by a 503 of its own.
    """
    await opened.store.list_buckets(limit=1)
    if len(opened.drives) < opened.code.k:
        raise NotEnoughFragments(f"{len(opened.drives)} drives can be read, {opened.code.k} are needed")


def gone_drives(layout: Layout) -> frozenset[DriveId]:
    """Drives that were replaced, or drained to the end."""
    return frozenset(drive.id for drive in layout.drives if drive.state is State.GONE)


async def _live(layouts: Layouts) -> tuple[Layout, ...]:
    live = await layouts.live()
    if not live:
        raise Unavailable("the metadata holds no layout: the store was not made to the end")
    return live


async def follow_layouts(opened: OpenStore) -> None:
    """Take up what another process made of the layout, and the code that goes with so many drives."""
    live = await _live(opened.layouts)
    opened.cluster.use(live)
    opened.attachments.gone = gone_drives(live[0])
    if live[0].version == opened.layout.version:
        return
    opened.layout = live[0]
    try:
        code = opened.settings.chosen_code(len(live[0].active))
    except InvalidRequest as error:
        _LOGGER.warning("new objects are still coded as %s: %s", opened.code, error)
        return
    if code != opened.code:
        _LOGGER.info("new objects are coded as %s from now on, no longer as %s", code, opened.code)
        opened.code = code
        opened.contents.use_code(code)


async def _watch_rows(opened: OpenStore) -> None:
    """Notice layouts and keyrings that other processes made."""
    said = ""
    while True:
        await opened.clock.sleep(WATCH_SECONDS)
        try:
            await follow_layouts(opened)
            await opened.keys.follow(opened.local)
        except HoldfastError as error:
            if str(error) != said:
                said = str(error)
                _LOGGER.warning("cannot follow what other processes change: %s", error)
        else:
            said = ""


async def _watch_drives(opened: OpenStore) -> None:
    """Notice drives that come and go. On its own: a disk that hangs must keep nothing else waiting."""
    attachments = opened.attachments
    seen = attachments.changes
    while True:
        await opened.clock.sleep(WATCH_SECONDS)
        await attachments.notice()
        opened.changes += attachments.changes - seen
        seen = attachments.changes


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
