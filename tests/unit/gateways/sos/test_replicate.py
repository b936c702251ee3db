"""Replication among servers that are dead, full, wrong or original: every object on N of its group, and right."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from holdfast.core.ids import Buffer
from holdfast.core.limits import MIB
from holdfast.gateways.sos import blob_client, replicate
from holdfast.gateways.sos.chunks import list_id
from holdfast.gateways.sos.servers import Role
from holdfast.gateways.sos.spool import Spool
from holdfast.testing.old_sos import Fault
from tests.unit.gateways.sos.world import CHUNK_BYTES, World, sha1, world


@pytest.fixture
async def four(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(blob_client, "SILENCE_MAX_SECONDS", 1.5)
    async with world(tmp_path, 4) as opened:
        yield opened


def right(four: World, name: str) -> list[bool]:
    """Which servers have this blob as it should be."""
    return [sha1(server.blobs.get(name, (b"none", {}))[0]) == name for server in four.old]


async def fill(four: World, count: int = 20) -> dict[str, bytes]:
    """So many objects on the first server; one of them large."""
    bodies = [Random(number).randbytes(number * 1000) for number in range(count)]
    bodies.append(Random(99).randbytes(2 * MIB))
    return {(await four.upload(body, {"x-number": str(number)})).id: body for number, body in enumerate(bodies)}


def copies(four: World, *numbers: int) -> set[int]:
    """On how many of these servers the objects are."""
    ids = {name for server in four.old for name in server.blobs}
    return {sum(name in four.old[number].blobs for number in numbers) for name in ids}


@pytest.mark.parametrize("min_copies", [1, 2, 3, 4])
async def test_each_object_is_on_as_many_servers(four: World, min_copies: int) -> None:
    kept = await fill(four)
    report = await four.replicate(min_copies)
    assert report.well
    assert copies(four, 0, 1, 2, 3) == {min_copies}
    for server in four.old:
        for name, (data, headers) in server.blobs.items():
            if name in kept:
                assert data == kept[name]
                assert len(headers) == 1
    assert (await four.replicate(min_copies)).copied == 0


async def test_copies_are_spread(four: World) -> None:
    await fill(four, 60)
    await four.replicate(2)
    assert all(len(server.blobs) > 8 for server in four.old[1:])


async def test_large_files_are_found_on_the_copies(four: World) -> None:
    data = Random(1).randbytes(4 * CHUNK_BYTES + 1)
    uploaded = await four.upload(data, {"x-name": "large"})
    await four.replicate(2)
    four.old[0].blobs.clear()
    four.use()
    assert await four.fetch_all(uploaded.id) == (data, {"x-name": "large"})


async def test_how_far_it_is_is_said(four: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicate, "PROGRESS_SECONDS", -1.0)
    await fill(four)
    await four.replicate(2)
    assert "of at least 29" in four.said[-1]
    four.said.clear()
    await four.replicate(2)
    assert four.said[-1] == "29 objects, 0 copied (0 bytes), of at least 29"


async def test_only_inside_of_a_group(four: World) -> None:
    four.use(groups="aabb")
    await four.upload(b"in the first group")
    four.old[2].blobs[sha1(b"in the second")] = b"in the second", {}
    await four.replicate(2)
    assert four.holders(sha1(b"in the first group")) == [0, 1]
    assert four.holders(sha1(b"in the second")) == [2, 3]


@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.ERROR_PAGE])
@pytest.mark.parametrize("dead", [0, 3])
async def test_a_dead_server_is_skipped(four: World, fault: Fault, dead: int) -> None:
    for server in four.old:
        server.blobs[sha1(b"x")] = b"x", {}
    four.old[1].blobs[sha1(b"y")] = b"y", {}
    four.old[dead].fault = fault
    report = await four.replicate(3)
    assert report.dead == [four.old[dead].url]
    assert report.well
    assert [number for number in range(4) if number != dead] == four.holders(sha1(b"y"))


async def test_a_full_server_is_skipped_and_still_read_from(four: World) -> None:
    for number in range(20):
        await four.upload(b"%d" % number)
    four.old[1].blobs[sha1(b"here alone")] = b"here alone", {}
    four.old[1].fault = Fault.FULL
    report = await four.replicate(3)
    assert report.well
    assert {1} < set(four.holders(sha1(b"here alone")))
    for name in four.old[0].blobs:
        assert sum(right(four, name)) == 3


async def test_more_copies_than_servers_is_said_and_done_as_far_as_it_goes(four: World) -> None:
    await fill(four, 3)
    report = await four.replicate(7)
    assert report.well
    assert any("* You have 4 blob-servers available.\n* You've asked for 7." in line for line in four.said)
    assert copies(four, 0, 1, 2, 3) == {4}


async def test_a_wrong_copy_is_not_spread(four: World) -> None:
    name = sha1(b"right")
    four.old[0].blobs[name] = b"wrong", {}
    report = await four.replicate(2)
    assert report.lost == [name]
    assert not report.well
    assert four.holders(name) == [0]
    four.old[3].blobs[name] = b"right", {}
    report = await four.replicate(3)
    assert report.well
    assert [server.blobs[name][0] for server in four.old if name in server.blobs].count(b"right") == 3


@pytest.mark.parametrize("immutable", [False, True])
async def test_verify_reads_every_copy_and_replaces_wrong_ones(four: World, immutable: bool) -> None:
    await fill(four)
    assert (await four.replicate(3)).well
    for number, server in enumerate(four.old[:2]):
        server.immutable = immutable
        for name in sorted(server.blobs)[number::2]:
            server.blobs[name] = server.blobs[name][0] + b"x", {}
    # By the lists all is well.
    assert (await four.replicate(3)).copied == 0
    report = await four.replicate(3, verify=True)
    assert report.well
    assert report.wrong > 5
    report = await four.replicate(3, verify=True)
    assert (report.wrong, report.copied) == (0, 0)
    assert copies(four, 0, 1, 2, 3) == {3}


async def test_a_damaged_chunk_list_is_not_spread(four: World) -> None:
    uploaded = await four.upload(bytes(3 * CHUNK_BYTES))
    name = list_id(uploaded.id)
    data, headers = four.old[0].blobs[name]
    four.old[0].blobs[name] = data[:-9] + b"00000000\n", headers
    report = await four.replicate(2)
    assert report.lost == [name]
    assert four.holders(name) == [0]


async def test_read_only_servers_are_read_and_preferred_ones_filled_first(four: World) -> None:
    four.use(Role.READ_ONLY, Role.PLAIN, Role.PLAIN, Role.PREFERRED)
    for number in range(10):
        data = b"%d" % number
        four.old[0].blobs[sha1(data)] = data, {}
    four.old[1].blobs[sha1(b"new")] = b"new", {}
    await four.replicate(2)
    assert len(four.old[3].blobs) == 11
    assert len(four.old[0].blobs) == 10


async def test_ids_given_by_hand_and_foreign_files(four: World) -> None:
    four.old[0].blobs["foo"] = b"bar", {"X-Name": "n"}
    four.old[0].listed = ["lost+found", "README.txt", "../etc", 'quo"te,"d', "caf\xe9"]
    report = await four.replicate(2)
    assert report.well
    assert report.objects == 1
    assert len(four.holders("foo")) == 2


async def test_a_run_that_was_cut_off_is_taken_up_by_the_next(four: World) -> None:
    await fill(four, 40)
    four.old[1].fault = four.old[2].fault = four.old[3].fault = Fault.FORGETS
    assert not (await four.replicate(2)).well
    for server in four.old:
        server.fault = Fault.NONE
    posts = sum(request.startswith("POST") for server in four.old for request in server.requests)
    await four.replicate(2)
    assert copies(four, 0, 1, 2, 3) == {2}
    assert sum(request.startswith("POST") for server in four.old for request in server.requests) > posts


async def test_few_large_objects_are_in_memory_at_once(four: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """From when they are read to when they are put."""
    held: set[int] = set()
    most = 0

    class Counting(Spool):
        async def write(self, piece: Buffer) -> None:
            nonlocal most
            held.add(id(self))
            most = max(most, len(held))
            await super().write(piece)

        def close(self) -> None:
            held.discard(id(self))
            super().close()

    await fill(four, 30)
    monkeypatch.setattr(replicate, "LARGE_AT_ONCE", 3)
    monkeypatch.setattr(replicate, "Spool", Counting)
    assert (await four.replicate(3)).well
    assert copies(four, 0, 1, 2, 3) == {3}
    assert 1 <= most <= 3
    assert held == set()
