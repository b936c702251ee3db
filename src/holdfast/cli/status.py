"""`holdfast status`: how the store is, for people and for programs; and the drives as the operator sees them."""

from dataclasses import dataclass, replace
from typing import Any

from holdfast.cli.keys import drives_with_kek
from holdfast.cli.opening import OpenStore
from holdfast.cli.output import Output, count, listed, size
from holdfast.cli.upkeep import chores_of
from holdfast.core.errors import HoldfastError, Unavailable
from holdfast.core.ids import DriveId
from holdfast.drives.interface import DriveUsage
from holdfast.erasure import Code
from holdfast.meta.local.engine import Status as MetaStatus
from holdfast.placement import State
from holdfast.upkeep.collect import space_is_short
from holdfast.upkeep.interface import Catalogue
from holdfast.upkeep.status import Health, UnderProtected, health

# Contents that `status` looks at itself, about a second of rows; of a larger store it tells what the last audit found.
CONTENTS_COUNTED_MAX = 20_000


@dataclass(frozen=True, slots=True)
class DriveStatus:
    """One drive of the store."""

    id: DriveId
    path: str
    """Where it is, or was last seen; "" when nobody remembers."""
    is_open: bool
    state: str
    """In words."""
    usage: DriveUsage | None
    metadata: str
    """Its part in the metadata: "mirror", "witness", "" for none."""

    def as_document(self) -> dict[str, Any]:
        usage = self.usage
        return {
            "id": self.id.hex(),
            "path": self.path,
            "open": self.is_open,
            "state": self.state,
            "total_bytes": usage.total if usage else None,
            "free_bytes": usage.free if usage else None,
            "live_bytes": usage.live if usage else None,
            "fragments": usage.fragments if usage else None,
            "metadata": self.metadata,
        }


async def drive_statuses(opened: OpenStore) -> list[DriveStatus]:
    """Every drive that the layout counts on, and those that lie about."""
    metadata = opened.local.status()
    places = opened.attachments.places
    found = [
        await _drive_status(opened, drive.id, drive.state, metadata)
        for drive in opened.layout.drives
        if drive.state is not State.GONE
    ]
    known = {drive.id for drive in opened.layout.drives}
    strangers = [drive for drive in opened.drives if drive not in known]
    found += [await _drive_status(opened, drive, None, metadata) for drive in strangers]
    leftovers = [drive for drive, path in opened.site.drives.items() if drive in opened.attachments.gone]
    found += [
        DriveStatus(drive, str(places[drive]), False, "done with: it can be removed", None, "") for drive in leftovers
    ]
    return sorted(found, key=lambda drive: (drive.path, drive.id))


async def _drive_status(opened: OpenStore, drive: DriveId, state: State | None, metadata: MetaStatus) -> DriveStatus:
    path = opened.attachments.places.get(drive)
    role = "mirror" if drive in metadata.mirrors else "witness" if drive in metadata.roster else ""
    usage: DriveUsage | None = None
    attached = opened.drives.get(drive)
    if attached is None:
        said = opened.attachments.why_missing(drive) or "missing"
    else:
        try:
            usage = await attached.usage()
            said = attached.failure or ""
        except HoldfastError as error:
            said = str(error)
    words = {State.ACTIVE: "in use", State.DRAINING: "being drained", None: "in no layout: `drive add` takes it in"}
    if state is State.DRAINING and said:
        said += "; being drained"
    return DriveStatus(drive, str(path or ""), attached is not None, said or words[state], usage, role)


def missing_drives(opened: OpenStore) -> list[str]:
    """Drives that the layout counts on and that are not open: where they were, or their ids."""
    places = opened.attachments.places
    return [
        str(places.get(drive.id, drive.id.hex()))
        for drive in opened.layout.drives
        if drive.state is not State.GONE and drive.id not in opened.drives
    ]


def show_drives(output: Output, drives: list[DriveStatus]) -> None:
    rows = [
        [
            drive.id.hex()[:8],
            drive.path or "?",
            drive.state,
            size(drive.usage.total - drive.usage.free) if drive.usage else "-",
            size(drive.usage.free) if drive.usage else "-",
            f"{drive.usage.fragments:,}" if drive.usage else "-",
            drive.metadata or "-",
        ]
        for drive in drives
    ]
    output.table(["DRIVE", "DIRECTORY", "STATE", "USED", "FREE", "FRAGMENTS", "METADATA"], rows)


async def show_status(opened: OpenStore, output: Output) -> bool:
    """Print how the store is; whether all is well."""
    drives = await drive_statuses(opened)
    chores = chores_of(opened)
    found = await health(chores.catalogue, chores.layouts, opened.code)
    try:
        counted = await under_protected_now(chores.catalogue, opened.code, limit=CONTENTS_COUNTED_MAX)
        found = replace(found, under_protected=counted)
    except Unavailable:
        pass  # what the last audit counted is said
    metadata = opened.local.status()
    missing = [drive for drive in drives if not drive.is_open and not drive.state.startswith("done with")]
    troubles = _troubles(opened, found, missing, metadata)
    notes = _notes(opened, found, drives)
    _say(opened, output, drives, metadata, troubles, notes)
    output.document(
        {
            "healthy": not troubles,
            "health": troubles or ["healthy"],
            "notes": notes,
            "store": opened.site.store.hex(),
            "code": str(opened.code),
            "layout": opened.layout.version,
            "layouts_moving": found.moving,
            "repair": {
                "blocks": found.damaged,
                "seconds_left": found.seconds_left,
                "waiting": found.waiting,
                "lost": found.lost,
            },
            "under_protected": [
                {"code": group.code, "contents": group.contents, "bytes": group.length}
                for group in found.under_protected
            ],
            "drives": [drive.as_document() for drive in drives],
            "metadata": {
                "mirrors": len(metadata.mirrors),
                "metacopies": metadata.metacopies,
                "losses": metadata.losses,
                "read_only": metadata.read_only,
                "full": metadata.full,
            },
            "key_on_drives": _key_is_on_drives(opened),
            "grace_gave_way": found.grace_gave_way,
        }
    )
    return not troubles


def _troubles(opened: OpenStore, found: Health, missing: list[DriveStatus], metadata: MetaStatus) -> list[str]:
    """What is wrong, worst first."""
    said = []
    if metadata.read_only:
        said.append(f"the metadata is read-only: {metadata.read_only}")
    if missing:
        said.append(f"{count(len(missing), 'drive')} missing: {listed([d.path or d.id.hex()[:8] for d in missing])}")
    if not found.is_healthy:
        said.append(found.words())
    if len(metadata.mirrors) < metadata.metacopies:
        said.append(f"{len(metadata.mirrors)} of {metadata.metacopies} metadata mirrors")
    if metadata.full:
        said.append("no room for more metadata: only deleting goes on")
    if metadata.trouble:
        said.append(f"the metadata cannot be tended: {metadata.trouble}")
    writable = sum(drive.failure is None for drive in opened.drives.values())
    if writable < opened.code.write_quorum:
        said.append(f"{count(writable, 'drive')} can be written to, {opened.code} needs {opened.code.write_quorum}")
    return said


def _notes(opened: OpenStore, found: Health, drives: list[DriveStatus]) -> list[str]:
    """What is no fault and should be known."""
    notes = found.notes()
    usages = [drive.usage for drive in drives if drive.usage is not None]
    if space_is_short(usages) and not found.grace_gave_way:
        notes.append("space is short: add a drive or delete something; what was deleted is not kept for the grace")
    if _key_is_on_drives(opened):
        notes.append(
            "no protection against theft: the key lies on the drives that it protects; `holdfast keyring detach` "
            "takes it away"
        )
    return notes + list(opened.site.warnings)


def _say(
    opened: OpenStore,
    output: Output,
    drives: list[DriveStatus],
    metadata: MetaStatus,
    troubles: list[str],
    notes: list[str],
) -> None:
    output.say(f"Health    {'; '.join(troubles) or 'healthy'}")
    output.say(f"Objects   new ones are kept as {opened.code}")
    mirrors = f"{len(metadata.mirrors)} of {metadata.metacopies} mirrors, witnesses on {len(metadata.roster)} drives"
    output.say(f"Metadata  {mirrors}; any {count(metadata.losses, 'drive')} may be lost")
    key = "on the drives" if _key_is_on_drives(opened) else "detached from the drives"
    output.say(f"Key       {key}")
    output.say("")
    show_drives(output, drives)
    if notes:
        output.say("")
    for note in notes:
        output.say(f"Note: {note}")


def _key_is_on_drives(opened: OpenStore) -> bool:
    return bool(drives_with_kek(opened.disk, opened.site.drives.values()))


async def under_protected_now(
    catalogue: Catalogue, code: Code, *, limit: int | None = None
) -> tuple[UnderProtected, ...]:
    """What survives fewer losses than `code` promises. Raises Unavailable when there are more contents than `limit`."""
    groups: dict[str, tuple[int, int]] = {}
    seen = 0
    async for entry in catalogue.contents():
        seen += 1
        if limit is not None and seen > limit:
            raise Unavailable("too much to count now")
        if entry.code.m < code.m:
            contents, length = groups.get(str(entry.code), (0, 0))
            groups[str(entry.code)] = contents + 1, length + entry.length
    return tuple(UnderProtected(code, *counted) for code, counted in sorted(groups.items()))
