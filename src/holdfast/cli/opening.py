"""Making a store and opening it: where the parts are put together.

Every process that works on a store goes through `open_store`: workers, upkeep, each command. It reads like a recipe,
from the directories up to the product's API, and closes in the opposite order.
"""

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from holdfast.cli.accounts import Accounts
from holdfast.cli.keys import find_kek, write_kek
from holdfast.cli.settings import Settings
from holdfast.cli.site import Site, begin, finish, survey, undo_unfinished
from holdfast.cli.system import SystemClock, SystemRandomness
from holdfast.cluster import Cluster
from holdfast.core.clock import Clock, Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import AccessDenied, HoldfastError, NodeDown, NotFound, Unavailable
from holdfast.core.ids import DriveId, new_token
from holdfast.core.limits import MIB
from holdfast.crypto.kek import new_kek, unwrap_keyring, wrap_keyring
from holdfast.crypto.keyring import Keyring, Purpose, new_keyring
from holdfast.drives.buffers import BufferPool
from holdfast.drives.directory import DirectoryDrive, open_drive
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
from holdfast.placement import Layout, LayoutDrive, encode_layout, first_layout
from holdfast.tree import SealingThreads

# The unit of S3 objects: large enough that a fragment of a wide code is worth a disk access, small enough that a few
# in flight for each upload fit in memory.
BLOCK_BYTES = 1 * MIB

META_NAME = "meta"

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
    disk: Disk
    clock: Clock
    randomness: Randomness
    local: LocalMeta
    meta: Meta
    keyring: Keyring
    drives: dict[DriveId, DirectoryDrive]
    layouts: Layouts
    cluster: Cluster
    contents: Contents
    store: Store
    accounts: Accounts
    code: Code


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
    finish(disk, directories)


async def _write_first_rows(settings: Settings, site: Site, disk: Disk, randomness: Randomness) -> None:
    keyring = new_keyring(site.store, randomness)
    kek = new_kek(randomness)
    layout = first_layout(
        LayoutDrive(drive, max(1, disk.space(path).total), NODE_NAME) for drive, path in site.drives.items()
    )
    async with await _open_metadata(settings, site, disk, randomness) as local:
        await local.commit([Put(KEYRING, wrap_keyring(keyring, kek, randomness))], token=new_token(randomness))
        sealed = SealedMeta(local, RowKeys.of(keyring, randomness), plain_prefixes=[KEYRING])
        await sealed.commit([Put(layout_row_key(1), encode_layout(layout))], token=new_token(randomness))
    write_kek(disk, site.drives.values(), kek)


def find_or_make(settings: Settings, disk: Disk, randomness: Randomness, clock: Clock) -> tuple[Site, bool]:
    """The store in these directories, made now if they are all empty; and whether it was. Blocks."""
    undo_unfinished(disk, settings.drives)
    site = survey(disk, settings.drives)
    if site is not None:
        return site, False
    make_store(settings, disk, randomness, clock)
    made = survey(disk, settings.drives)
    assert made is not None
    return made, True


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[OpenStore]:
    """The store in the directories of `settings`, for as long as the context lasts.

    Raises NodeDown when none of them is a drive, and what opening the parts raises.
    """
    clock, randomness = SystemClock(), SystemRandomness()
    disk: Disk = OsDisk() if settings.sync == "strict" else RelaxedDisk(OsDisk())
    site = survey(disk, settings.drives)
    if site is None:
        raise NodeDown(f"{settings.drives[0]} is no Holdfast drive: mount the disk that belongs there")
    async with AsyncExitStack() as stack:
        local = await stack.enter_async_context(await _open_metadata(settings, site, disk, randomness))
        keyring = await _open_keyring(settings, site, disk, local)
        meta = SealedMeta(local, RowKeys.of(keyring, randomness), plain_prefixes=[KEYRING])
        drives = await _open_drives(site, disk, randomness)
        stack.push_async_callback(_close_drives, drives)
        layouts = Layouts(meta, randomness)
        cluster = Cluster(drives, clock=clock)
        code = settings.chosen_code(len((await _follow(layouts, cluster))[0].active))
        watcher = asyncio.create_task(_watch(site, disk, randomness, clock, drives, layouts, cluster), name="watch")
        stack.push_async_callback(_stop, watcher)
        sessions = Sessions(meta, clock, randomness, host=socket.gethostname(), process=os.getpid())
        stack.push_async_callback(sessions.close)
        contents = _open_contents(stack, meta, cluster, layouts, sessions, keyring, code, clock, randomness)
        hashing = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="hash")
        stack.callback(hashing.shutdown, wait=False)
        store = Store(StoreParts(meta, contents, sessions, clock, randomness, hashing, BLOCK_BYTES))
        accounts = Accounts(meta, clock, randomness)
        stack.push_async_callback(accounts.close)
        yield OpenStore(
            settings=settings,
            site=site,
            disk=disk,
            clock=clock,
            randomness=randomness,
            local=local,
            meta=meta,
            keyring=keyring,
            drives=drives,
            layouts=layouts,
            cluster=cluster,
            contents=contents,
            store=store,
            accounts=accounts,
            code=code,
        )


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
    keys = ContentKeys(
        read_sealer=keyring.sealer(Purpose.READ, randomness),
        read_opener=keyring.opener(Purpose.READ),
        walk_sealer=keyring.sealer(Purpose.WALK, randomness),
        walk_opener=keyring.opener(Purpose.WALK),
        tags=keyring.tag_sealer(randomness),
    )
    sealing = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="seal")
    stack.callback(sealing.shutdown, wait=False)
    threads = SealingThreads(sealing, randomness)
    return Contents(meta, cluster, layouts, sessions, keys, threads, code, clock)


async def _open_metadata(settings: Settings, site: Site, disk: Disk, randomness: Randomness) -> LocalMeta:
    metadata = {drive: path / META_NAME for drive, path in site.drives.items()}
    run = run_directory(settings, site)
    return await open_local(metadata, store=site.store, run=run, disk=disk, randomness=randomness)


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


async def _open_keyring(settings: Settings, site: Site, disk: Disk, local: LocalMeta) -> Keyring:
    try:
        wrapped = (await local.get(KEYRING)).value
    except NotFound:
        raise Unavailable("the metadata holds no keyring: the store was not made to the end") from None
    kek = await asyncio.to_thread(
        find_kek,
        disk,
        list(site.drives.values()),
        wrapped,
        kek_file=settings.kek_file,
        passphrase_file=settings.passphrase_file,
    )
    return unwrap_keyring(wrapped, kek)


async def _open_drives(site: Site, disk: Disk, randomness: Randomness) -> dict[DriveId, DirectoryDrive]:
    """Those that open. One that does not is a missing drive, and the store goes on without it."""
    pool = BufferPool()

    async def attempt(drive: DriveId, path: Path) -> DirectoryDrive | None:
        try:
            return await open_drive(path, disk=disk, randomness=randomness, store=site.store, drive=drive, pool=pool)
        except HoldfastError as error:
            _LOGGER.warning("drive %s is left out: %s", path, error)
            return None

    opened = await asyncio.gather(*(attempt(drive, path) for drive, path in site.drives.items()))
    return {drive.id: drive for drive in opened if drive is not None}


async def _close_drives(drives: Mapping[DriveId, DirectoryDrive]) -> None:
    await asyncio.gather(*(drive.close() for drive in drives.values()))


async def _follow(layouts: Layouts, cluster: Cluster) -> tuple[Layout, ...]:
    live = await layouts.live()
    if not live:
        raise Unavailable("the metadata holds no layout: the store was not made to the end")
    cluster.use(live)
    return live


async def _watch(
    site: Site,
    disk: Disk,
    randomness: Randomness,
    clock: Clock,
    drives: dict[DriveId, DirectoryDrive],
    layouts: Layouts,
    cluster: Cluster,
) -> None:
    """Notice layouts that other processes made, and drives that came back."""
    while True:
        await clock.sleep(WATCH_SECONDS)
        try:
            await _follow(layouts, cluster)
        except HoldfastError:
            continue


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
