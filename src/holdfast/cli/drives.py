"""`drive list|add|replace|drain`: changing which drives a store has, while it is served or not.

Order within a change: first the new drive's identity and keys, then its place in the metadata's roster, and last the
layout, from which everything follows. Cut off anywhere, the same command goes on: a drive of the store that is in no
layout yet is taken in where it stands. Running processes notice by themselves (`attaching`, `opening`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from holdfast.cli.keys import drives_with_kek, remove_kek, write_kek
from holdfast.cli.opening import META_NAME, NODE_NAME, OpenStore, follow_layouts
from holdfast.cli.output import Output, count, listed, size
from holdfast.cli.repair import rebalance
from holdfast.cli.settings import default_code
from holdfast.cli.site import write_places
from holdfast.cli.status import drive_statuses, show_drives, under_protected_now
from holdfast.cli.upkeep import chores_of
from holdfast.core.errors import AlreadyExists, Corrupt, InvalidRequest, NotFound
from holdfast.core.ids import BlockId, DriveId
from holdfast.drives.identity import DirectoryState, check_identity, create_drive, inspect_directory, read_identity
from holdfast.placement import Layout, LayoutDrive, State, add, replace_drive, retire
from holdfast.upkeep.interface import Catalogue, Liveness, TaggedContent

# Somebody else changing the layout in the same second is rare; twice in a row is not chance.
PUBLISH_ATTEMPTS_MAX = 5

# The shortest beginning of a drive's id that a command takes for it.
ID_PREFIX_MIN_CHARS = 4


async def list_drives(opened: OpenStore, output: Output) -> bool:
    """Print the drives; whether all are there."""
    drives = await drive_statuses(opened)
    show_drives(output, drives)
    output.document({"drives": [drive.as_document() for drive in drives]})
    return all(drive.is_open or drive.id in opened.attachments.gone for drive in drives)


async def add_drives(opened: OpenStore, output: Output, directories: Sequence[Path]) -> bool:
    """Take new drives in."""
    before = opened.code
    new = {_prepare(opened, path): path for path in directories}
    roster = {drive: path for drive, path in opened.attachments.places.items() if drive in opened.local.status().roster}
    roster |= new
    await _set_roster(opened, roster, shrinking=False)
    remember(opened, new, ())
    await _publish(opened, lambda layout: add(layout, [_entry(opened, drive, path) for drive, path in new.items()]))
    await opened.attachments.look()
    for drive, path in new.items():
        output.say(f"drive {drive.hex()[:8]} added at {path}")
    if opened.code != before:
        output.say(f"new objects are kept as {opened.code} from now on, no longer as {before}")
    weak = await under_protected_now(chores_of(opened).catalogue, opened.code)
    for group in weak:
        output.say(
            f"under-protected: {count(group.contents, 'object or part', 'objects or parts')} ({size(group.length)}) "
            f"kept as {group.code} until `holdfast recode` makes them {opened.code}"
        )
    output.say("the server moves data there in the background; `holdfast repair` does it now")
    output.say("name the new directory, too, when the server is started next")
    output.document(
        {
            "added": [{"id": drive.hex(), "path": str(path)} for drive, path in new.items()],
            "code": str(opened.code),
            "under_protected": [
                {"code": group.code, "contents": group.contents, "bytes": group.length} for group in weak
            ],
        }
    )
    return True


async def replace_lost(opened: OpenStore, output: Output, old_name: str, directory: Path, *, force: bool) -> bool:
    """Give the seat of a lost drive to a new one."""
    old = _find(opened, old_name)
    if old in opened.drives and opened.drives[old].failure is None and not force:
        raise InvalidRequest(
            f"drive {old.hex()[:8]} answers: `holdfast drive drain` brings its data to the others first; "
            "--force gives it up at once"
        )
    new = _prepare(opened, directory, in_place_of=old)
    if old in opened.local.status().roster:
        await opened.local.replace_drives({new: directory / META_NAME}, heirs={old: new})
    if old in opened.drives:
        remove_kek(opened.disk, [opened.drives[old].directory])
    await _publish(opened, lambda layout: replace_drive(layout, old, _entry(opened, new, directory)))
    remember(opened, {new: directory}, (old,))
    await opened.attachments.look()
    output.say(f"drive {new.hex()[:8]} at {directory} takes the place of {old.hex()[:8]}")
    output.say("what was on the lost one is made again from the others: the server does it in the background,")
    output.say("`holdfast repair` does it now. Never give the lost drive to this store again.")
    output.document({"replaced": old.hex(), "by": new.hex(), "path": str(directory)})
    return True


async def drain(opened: OpenStore, output: Output, name: str) -> bool:
    """Bring everything off a drive, and let go of it; whether that is done. What a missing one held is made again."""
    drive = _find(opened, name)
    if _entry_of(opened.layout, drive).state is State.ACTIVE:
        left = len(opened.layout.active) - 1
        if left < 1:
            raise InvalidRequest("this is the store's last drive: add another first")
        if left < opened.code.width:
            output.say(f"with {count(left, 'drive')} left, what is kept as {opened.code} survives fewer losses")
        await _publish(opened, lambda layout: retire(layout, drive, State.DRAINING))
        output.say(f"drive {drive.hex()[:8]} takes nothing new from now on")
    chores = chores_of(opened)
    await rebalance(opened, chores, output)
    living = await _living(opened, drive) if drive in opened.drives else 0
    if len(await chores.layouts.live()) > 1 or living:
        output.say(
            f"not everything could be brought off drive {drive.hex()[:8]} ({count(living, 'fragment')} left there): "
            "other drives are missing or full, see `holdfast status`, then drain again"
        )
        output.document({"drained": drive.hex(), "done": False, "left": living})
        return False
    place = opened.attachments.places.get(drive)
    await _let_go(opened, drive)
    await rebalance(opened, chores, output)
    output.say(f"drive {drive.hex()[:8]} is done with: {place or 'it'} can be removed")
    output.document({"drained": drive.hex(), "done": True, "path": str(place or "")})
    return True


async def _let_go(opened: OpenStore, drive: DriveId) -> None:
    """Take an empty drive out of the metadata's roster and of the layout, and the key off it."""
    on_roster = opened.local.status().roster
    roster = {other: path for other, path in opened.attachments.places.items() if other in on_roster and other != drive}
    await _set_roster(opened, roster, shrinking=True)
    if drive in opened.drives:
        remove_kek(opened.disk, [opened.drives[drive].directory])
    await _publish(opened, lambda layout: retire(layout, drive, State.GONE))
    remember(opened, {}, (drive,))


def _prepare(opened: OpenStore, directory: Path, *, in_place_of: DriveId | None = None) -> DriveId:
    """Make a drive of a directory, or go on with one that was made and not taken in. Raises AlreadyExists."""
    if inspect_directory(opened.disk, directory) is DirectoryState.DRIVE:
        identity = read_identity(opened.disk, directory)
        check_identity(identity, directory, store=opened.site.store)
        if any(entry.id == identity.drive for entry in opened.layout.drives):
            raise AlreadyExists(f"{directory} is a drive of this store already, or was: give an empty directory")
        drive = identity.drive
    else:
        _check_not_missing(opened, directory, in_place_of)
        drive = create_drive(opened.disk, opened.randomness, directory, opened.site.store).drive
    if drives_with_kek(opened.disk, opened.site.drives.values()):
        write_kek(opened.disk, [directory], opened.keys.kek)
    return drive


def _check_not_missing(opened: OpenStore, directory: Path, in_place_of: DriveId | None) -> None:
    """An empty directory where a drive should be is a missing drive, never a new one."""
    for drive, path in opened.attachments.places.items():
        is_wanted = any(entry.id == drive and entry.state is not State.GONE for entry in opened.layout.drives)
        if path == directory and is_wanted and drive != in_place_of:
            raise InvalidRequest(
                f"{directory} is where drive {drive.hex()[:8]} belongs: mount its disk there, or give it up with "
                f"`holdfast drive replace DIR... {drive.hex()[:8]} {directory}`"
            )


def _entry(opened: OpenStore, drive: DriveId, path: Path) -> LayoutDrive:
    return LayoutDrive(drive, max(1, opened.disk.space(path).total), NODE_NAME)


def _entry_of(layout: Layout, drive: DriveId) -> LayoutDrive:
    return next(entry for entry in layout.drives if entry.id == drive)


def _find(opened: OpenStore, name: str) -> DriveId:
    """A drive of the layout by the beginning of its id, or by the directory where it is or was. Raises NotFound."""
    wanted = [entry.id for entry in opened.layout.drives if entry.state is not State.GONE]
    path = Path(name).absolute()
    by_place = [drive for drive in wanted if opened.attachments.places.get(drive) == path]
    by_id = [drive for drive in wanted if len(name) >= ID_PREFIX_MIN_CHARS and drive.hex().startswith(name.lower())]
    found = by_place or by_id
    if len(found) != 1:
        known = listed([f"{drive.hex()[:8]} ({opened.attachments.places.get(drive, '?')})" for drive in wanted])
        raise NotFound(f"{name} is {'more than one' if found else 'no'} drive of this store: there are {known}")
    return found[0]


async def _publish(opened: OpenStore, change: Callable[[Layout], Layout]) -> None:
    """Make the next layout and take it up."""
    for attempt in range(PUBLISH_ATTEMPTS_MAX):
        newest = (await opened.layouts.live())[0]
        try:
            await opened.layouts.publish(change(newest))
            break
        except AlreadyExists:
            if attempt == PUBLISH_ATTEMPTS_MAX - 1:
                raise
    await follow_layouts(opened)


async def _set_roster(opened: OpenStore, drives: dict[DriveId, Path], *, shrinking: bool) -> None:
    """Keep the metadata on these drives, for as many losses as data of the default code for so many survives."""
    status = opened.local.status()
    losses = default_code(len(drives)).m
    losses = min(status.losses, losses) if shrinking else max(status.losses, losses)
    # An operator who asked for more copies than the code needs keeps them, as far as there are drives.
    metacopies = min(max(status.metacopies, losses + 1), len(drives))
    roster = {drive: path / META_NAME for drive, path in drives.items()}
    await opened.local.set_drives(roster, losses=losses, metacopies=metacopies)


def remember(opened: OpenStore, new: dict[DriveId, Path], gone: Sequence[DriveId]) -> None:
    """Have every drive, the new ones too, remember where all are."""
    places = {**opened.attachments.places, **new}
    for drive in gone:
        places.pop(drive, None)
    there = [drive.directory for drive in opened.drives.values() if drive.id not in gone]
    write_places(opened.disk, [*there, *new.values()], places)


async def _living(opened: OpenStore, drive: DriveId) -> int:
    """Fragments on a drive that a living content needs."""
    chores = chores_of(opened)
    living = 0
    after = None
    while page := await opened.drives[drive].list(after, 1000):
        after = page[-1].key
        tagged: list[tuple[TaggedContent, BlockId]] = []
        for info in page:
            try:
                tagged.append((chores.open_tag(info.tag), info.key.block))
            except Corrupt:
                continue  # not sealed by this store: nobody waits for it
        states = await chores.catalogue.liveness([found.content for found, _ in tagged])
        for (found, block), state in zip(tagged, states, strict=True):
            if state is Liveness.LIVE and await _is_needed(chores.catalogue, found, block):
                living += 1
    return living


async def _is_needed(catalogue: Catalogue, tagged: TaggedContent, block: BlockId) -> bool:
    """Whether a living content still has that block: one that was recoded waits for its old ones to be collected."""
    try:
        await catalogue.find(tagged, block)
    except NotFound:
        return False
    return True
