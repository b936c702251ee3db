"""`scrub`, `repair` and `fsck`: upkeep's work, done now and at full speed, with progress and a summary.

All three may be cut off at any moment: what was found is in the outbox, a scrub goes on where it stopped. They work
beside the upkeep process of a server, taking turns with it.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from holdfast.cli.affected import affected_objects
from holdfast.cli.opening import OpenStore
from holdfast.cli.output import Output, Progress, count, listed, size
from holdfast.cli.status import missing_drives
from holdfast.cli.turns import MOVING, InTurn
from holdfast.cli.upkeep import Chores, chores_of, in_words
from holdfast.core.errors import HoldfastError, Unavailable
from holdfast.core.ids import ContentId
from holdfast.drives.directory import DirectoryDrive
from holdfast.upkeep.audit import Auditor, AuditRecord
from holdfast.upkeep.fsck import Finding, Trouble, fsck
from holdfast.upkeep.rebalance import Rebalancer
from holdfast.upkeep.repair import Repairer
from holdfast.upkeep.scrub import Scrubber, ScrubRecord
from holdfast.upkeep.worker import State as WorkerState
from holdfast.upkeep.worker import settle

# Rounds of mending: a second one mends what the first one's end brought to light, or what a race or a slow drive left.
ROUNDS_MAX_COUNT = 3

# What lies about and is no loss of anything: the collection and the sweep delete it by themselves.
_HARMLESS = frozenset({Trouble.ORPHAN, Trouble.DANGLING})

# Lines of findings that `fsck` prints one by one.
FINDINGS_SHOWN_MAX = 200


async def scrub(opened: OpenStore, output: Output) -> bool:
    """Read and check every fragment of every drive; whether all are good."""
    chores = chores_of(opened)
    names = {drive: f"scrub by hand {drive.hex()[:8]}" for drive in opened.drives}
    total = 0
    for drive in opened.drives.values():
        total += (await drive.usage()).fragments
    silent: list[str] = []
    with output.progress("scrub", total) as progress:
        scrubbers = [
            Scrubber(drive, chores.catalogue, chores.open_tag, opened.clock, name=names[drive.id])
            for drive in opened.drives.values()
        ]

        async def work(scrubber: Scrubber, drive: DirectoryDrive) -> None:
            await scrubber.request()
            try:
                while await scrubber.work() is WorkerState.BUSY:
                    progress.at(sum(other.checked for other in scrubbers), total)
            except Unavailable as error:
                silent.append(f"{drive.directory}: {error}")

        await asyncio.gather(*map(work, scrubbers, opened.drives.values()))
    records = [scrubber.record or ScrubRecord() for scrubber in scrubbers]
    checked, bad = sum(record.checked for record in records), sum(record.bad for record in records)
    unattributable = sum(record.unattributable for record in records)
    checked_bytes = sum(record.checked_bytes for record in records)
    missing = missing_drives(opened)
    output.say(
        f"{count(checked, 'fragment')} on {count(len(names), 'drive')} read and checked ({size(checked_bytes)}): "
        f"{bad or 'none'} bad"
    )
    if bad:
        output.say("what lives of them was told to repair: `holdfast repair` mends it now, the server does by itself")
    if unattributable:
        output.say(f"{count(unattributable, 'fragment')} not sealed by this store: left alone")
    for said in silent + [f"{path} is missing" for path in missing]:
        output.say(f"not read: {said}")
    output.document(
        {
            "checked": checked,
            "checked_bytes": checked_bytes,
            "bad": bad,
            "unattributable": unattributable,
            "silent": silent,
            "missing": missing,
        }
    )
    return not (bad or silent or missing)


async def repair(opened: OpenStore, output: Output) -> bool:
    """Look up every block, and mend all that is not as it should be; whether nothing is left."""
    chores = chores_of(opened)
    audit = AuditRecord()
    before = left = 0
    for number in range(ROUNDS_MAX_COUNT):
        with output.progress("looking up every block") as progress:
            audit = await _audit(opened, chores, progress)
        found = await chores.catalogue.count_damaged()
        before = max(before, found)
        await mend(opened, chores, output, found)
        left = await chores.catalogue.count_damaged()
        if not left or (number and left >= found):
            break
    moving = len(await chores.layouts.live()) - 1
    missing = missing_drives(opened)
    output.say(f"{count(audit.blocks, 'block')} looked up, {before:,} needed repair, {left:,} still do")
    if moving:
        output.say("data is still on its way to its new drives")
    if left or moving:
        why = f": {listed(missing)} missing, `holdfast drive replace` gives it up" if missing else ""
        output.say(f"what is left waits for a drive that does not answer, or cannot be read now{why}")
    output.document({"looked_up": audit.blocks, "found": before, "left": left, "moving": moving, "missing": missing})
    return not (left or moving or missing)


async def _audit(opened: OpenStore, chores: Chores, progress: Progress) -> AuditRecord:
    """One whole pass, from the beginning; what it found."""
    auditor = Auditor(chores.catalogue, chores.layouts, chores.healer, opened.clock)
    await auditor.request()
    blocks = 0
    while await auditor.work() is WorkerState.BUSY:
        blocks += 1
        progress.at(blocks)
    return auditor.record or AuditRecord()


async def mend(opened: OpenStore, chores: Chores, output: Output, found: int) -> None:
    """One pass over the outbox, and whatever is on its way to other drives."""
    repairer = InTurn(Repairer(chores.catalogue, chores.healer, opened.clock), opened.run, MOVING, opened.clock)
    with output.progress("repair", found) as progress:
        while await repairer.work() is WorkerState.BUSY:
            progress.at(found - await chores.catalogue.count_damaged(), found)
    if len(await chores.layouts.live()) > 1:
        await rebalance(opened, chores, output)


async def rebalance(opened: OpenStore, chores: Chores, output: Output) -> None:
    """Bring everything to where the newest layout wants it, as far as the drives answer."""
    rebalancer = Rebalancer(chores.catalogue, chores.layouts, chores.healer, opened.clock)
    in_turn = InTurn(rebalancer, opened.run, MOVING, opened.clock)
    with output.progress("moving data to its drives"):
        await settle(in_turn)


async def check(opened: OpenStore, output: Output, *, read: bool, mending: bool) -> bool:
    """`fsck`: look at everything from both sides; whether all is as it should be."""
    chores = chores_of(opened)
    found: list[Finding] = []
    troubles: Counter[Trouble] = Counter()
    lost: set[ContentId] = set()
    with output.progress("fsck") as progress:
        async for finding in fsck(
            chores.catalogue, opened.drives, chores.layouts, chores.open_tag, read=read, repair=mending
        ):
            troubles[finding.trouble] += 1
            progress.at(troubles.total())
            if finding.trouble in (Trouble.LOST, Trouble.UNREAD) and finding.content is not None:
                lost.add(finding.content)
            if len(found) < FINDINGS_SHOWN_MAX:
                found.append(finding)
                output.say(str(finding))
    if troubles.total() > len(found):
        output.say(f"... and {troubles.total() - len(found):,} more")
    objects = await affected_objects(opened, lost) if lost else []
    for name in objects:
        output.say(f"cannot be read now: {name}")
    metadata = await _check_metadata(opened) if read else []
    for said in metadata:
        output.say(said)
    missing = missing_drives(opened)
    for path in missing:
        output.say(f"missing: {path}")
    left = await chores.catalogue.count_damaged()
    for _ in range(ROUNDS_MAX_COUNT):
        if not (mending and troubles and left):
            break
        await mend(opened, chores, output, left)
        left = await chores.catalogue.count_damaged()
    wrong = troubles.total() - sum(troubles[trouble] for trouble in _HARMLESS)
    _conclude(
        output, troubles, left if mending else None, or_else="nothing else is wrong" if metadata else "nothing is wrong"
    )
    output.document(
        {
            "findings": {trouble.value: troubles[trouble] for trouble in Trouble if troubles[trouble]},
            "first": [str(finding) for finding in found],
            "objects": objects,
            "metadata": metadata,
            "missing": missing,
            "left": left,
        }
    )
    return not (lost or missing or metadata) and (not wrong or (mending and not left))


async def _check_metadata(opened: OpenStore) -> list[str]:
    try:
        return [in_words(finding) for finding in await opened.local.verify()]
    except HoldfastError as error:
        return [f"the metadata could not be verified: {error}"]


def _conclude(output: Output, troubles: Counter[Trouble], left: int | None, *, or_else: str) -> None:
    if not troubles:
        output.say(or_else)
        return
    said: Sequence[str] = [f"{troubles[trouble]:,} {trouble.value}" for trouble in Trouble if troubles[trouble]]
    output.say(f"found: {', '.join(said)}")
    if set(troubles) <= _HARMLESS:
        output.say(
            "nothing is wrong: these are left from what was deleted, recoded or broken off, and go by themselves"
        )
    elif left is None:
        output.say("`holdfast fsck --repair` mends what can be mended")
    elif left:
        output.say(
            f"{count(left, 'block')} could not be mended now: too few good fragments, or a drive does not answer"
        )
    else:
        output.say("what could be mended was mended")
