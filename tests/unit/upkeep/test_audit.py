"""The audit and fsck: what is not where it should be is found, from the rows and from the drives."""

from collections import Counter

import pytest

from holdfast.cluster.heal import Healer
from holdfast.core.errors import Corrupt, HoldfastError, NotEnoughFragments
from holdfast.core.ids import DriveId
from holdfast.drives.interface import Fragment, FragmentKey
from holdfast.erasure import copies, erasure
from holdfast.upkeep import audit
from holdfast.upkeep.audit import Auditor, AuditRecord
from holdfast.upkeep.fsck import Finding, Trouble, fsck, worst
from holdfast.upkeep.progress import SAVE_SECONDS
from holdfast.upkeep.worker import State, settle
from tests.unit.upkeep.crew import Crew
from tests.unit.upkeep.world import World, open_tag


def auditor(world: World) -> Auditor:
    return Auditor(world, world.layouts, Healer(world.attached(), world.layouts), world.clock)


async def check(world: World, *, read: bool = False, repair: bool = False) -> list[Finding]:
    found = fsck(world, world.attached(), world.layouts, open_tag, read=read, repair=repair)
    return [finding async for finding in found]


def counted(findings: list[Finding]) -> dict[Trouble, int]:
    return dict(Counter(finding.trouble for finding in findings))


async def test_a_sound_store_has_nothing_to_say() -> None:
    world = World(6)
    await world.create(erasure(2, 2), 3)
    await world.write(copies(2))  # in flight: not garbage
    await settle(auditor(world))
    assert not world.outbox
    assert await check(world, read=True) == []


async def test_what_a_drive_forgot_is_reported() -> None:
    world = World(6)
    await world.create(erasure(2, 1), 5)
    drive = next(drive for drive in world.drives.values() if drive.held())
    lost = {bytes(key.block) for key in drive.held()}
    await drive.wipe()
    await settle(auditor(world))
    assert set(world.outbox) == lost
    assert counted(await check(world)) == {Trouble.MISSING: len(lost)}


async def test_what_is_lost_for_good_is_reported_and_what_may_come_back_is_not() -> None:
    world = World(4)
    content = await world.create(copies(2))
    ref = world.rows[content].refs[0]
    homes = world.layouts.all[0].drives(ref)
    world.drives[homes[0]].lose(FragmentKey(ref.id, 0))
    world.drives[homes[1]].silent = True
    await settle(auditor(world))
    assert bytes(ref.id) not in world.outbox
    world.drives[homes[1]].silent = False
    world.drives[homes[1]].lose(FragmentKey(ref.id, 1))
    worker = auditor(world)
    await worker.request()
    await settle(worker)
    assert bytes(ref.id) in world.outbox


async def test_an_unplugged_drive_floods_nothing() -> None:
    world = World(6)
    await world.create(erasure(2, 1), 5)
    drives = list(world.drives.values())
    drives[0].silent = True
    del world.drives[drives[1].id]
    await settle(auditor(world))
    assert not world.outbox


async def test_what_came_back_from_the_dead_is_found_in_its_wrong_places() -> None:
    world = World(6)
    content = await world.create(copies(2), 2)
    old = world.drives[world.layouts.all[0].drives(world.rows[content].refs[0])[0]]
    old.silent = True
    world.layouts.change([drive for drive in world.drives if drive != old.id])
    crew = Crew(world)
    await crew.settle(crew.rebalancer)
    assert old.held()
    old.silent = False
    await crew.auditor.request()
    await crew.settle(crew.auditor)
    assert world.outbox
    await crew.settle(crew.repairer)
    assert not old.held()


async def test_while_layouts_change_only_what_is_missing_is_reported() -> None:
    world = World(5)
    content = await world.create(erasure(2, 1), 4)
    world.layouts.change([*world.drives, world.add_drive().id])
    await settle(auditor(world))
    assert not world.outbox
    ref = world.rows[content].refs[0]
    for drive in world.drives.values():
        if FragmentKey(ref.id, 0) in drive.held():
            drive.lose(FragmentKey(ref.id, 0))
    worker = auditor(world)
    await worker.request()
    await settle(worker)
    assert set(world.outbox) == {bytes(ref.id)}


async def test_a_pass_is_resumed_behind_the_last_content(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "BATCH_BLOCKS", 2)
    world = World(4)
    for _ in range(6):
        await world.create(copies(2))
    first = auditor(world)
    await first.work()
    await world.clock.advance(SAVE_SECONDS)
    assert await first.work() is State.BUSY
    record = AuditRecord.decode(world.progress["audit"])
    assert record.after == min(world.rows)
    await settle(auditor(world))
    record = AuditRecord.decode(world.progress["audit"])
    assert record.known_kept["2 copies"].contents == 6
    assert not record.under_way
    assert 12 < record.blocks <= 14  # what lay behind the last end was looked at twice


async def test_fsck_finds_every_kind_of_trouble() -> None:
    world = World(4)
    bad, dangling, orphan, foreign, lost = [await world.create(copies(2)) for _ in range(5)]
    place = {name: world.rows[name].refs[0] for name in (bad, dangling, foreign, lost)}

    def home(name: object) -> DriveId:
        return world.layouts.all[0].drives(place[name])[0]  # type: ignore[index]

    world.drives[home(bad)].rotten.add(FragmentKey(place[bad].id, 0))
    key = FragmentKey(place[foreign].id, 0)
    good = world.drives[home(foreign)].held()[key]
    world.drives[home(foreign)].held()[key] = Fragment(key, good.commitment, good.leaves, b"whose?", good.payload)
    key = FragmentKey(place[dangling].id, 0)
    good = world.drives[home(dangling)].held()[key]
    stray = Fragment(key, good.commitment, good.leaves, good.tag[:-1] + b"\x07", good.payload)
    world.drives[home(dangling)].held()[key] = stray
    for drive in world.drives.values():
        for index in range(2):
            if FragmentKey(place[lost].id, index) in drive.held():
                drive.lose(FragmentKey(place[lost].id, index))
    del world.rows[orphan]
    world.beats.clear()
    findings = await check(world, read=True)
    assert counted(findings) == {
        Trouble.LOST: 1,
        Trouble.MISSING: 2,
        Trouble.BAD: 1,
        Trouble.ORPHAN: 4,
        Trouble.DANGLING: 1,
        Trouble.UNATTRIBUTABLE: 1,
    }
    assert worst(findings) is Trouble.LOST
    assert not world.outbox


async def test_fsck_says_what_it_could_not_look_at() -> None:
    world = World(3)
    content = await world.create(copies(2), 2)
    root = world.rows[content].refs[-1]
    homes = world.layouts.all[0].drives(root)
    for index in range(2):
        world.drives[homes[index]].lose(FragmentKey(root.id, index))
    silent = world.drives[homes[2]]
    silent.silent = True
    found = counted(await check(world))
    assert found[Trouble.UNREAD] == 1
    assert found[Trouble.SILENT] == 1


@pytest.mark.parametrize("error", [Corrupt, NotEnoughFragments])
async def test_fsck_goes_on_beside_a_tree_that_cannot_be_read(
    error: type[HoldfastError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def find(*_: object) -> None:
        raise error

    world = World(3)
    root = world.rows[await world.create(copies(2), 2)].refs[-1]
    for drive in world.drives.values():
        for index in range(2):
            if FragmentKey(root.id, index) in drive.held():
                drive.lose(FragmentKey(root.id, index))
    monkeypatch.setattr(world, "find", find)
    holder = next(drive for drive in world.drives.values() if drive.held())
    holder.rotten.add(min(holder.held()))
    found = counted(await check(world, read=True))
    assert found == {Trouble.UNREAD: 1, Trouble.LOST: 1, Trouble.MISSING: 2, Trouble.BAD: 1}


async def test_fsck_repair_leaves_a_sound_store() -> None:
    world = World(6)
    for _ in range(4):
        await world.create(erasure(2, 2), 2)
    drives = list(world.drives.values())
    await drives[0].wipe()
    drives[1].rotten |= set(drives[1].held())
    assert await check(world, read=True, repair=True)
    crew = Crew(world)
    await crew.settle(crew.repairer)
    assert await check(world, read=True) == []


def test_a_finding_says_where() -> None:
    finding = Finding(Trouble.BAD, None, None, 3, DriveId(b"\xab" * 16), "flipped")
    assert str(finding) == "bad fragment 3 on drive abababab (flipped)"
    assert worst([]) is None
