"""Uploads past servers that are full, dead, lying or slow: an id that was given out finds the right bytes."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from holdfast.core.errors import InvalidRequest, Unavailable
from holdfast.core.limits import KIB, MIB
from holdfast.gateways.sos import blob_client
from holdfast.gateways.sos.chunks import ChunkList, list_id
from holdfast.gateways.sos.servers import Role
from holdfast.testing.blob_suite import broken, refusal
from holdfast.testing.old_sos import Fault
from tests.unit.gateways.sos.world import CHUNK_BYTES, World, sha1, world

BAD = [Fault.FULL, Fault.ERROR_PAGE, Fault.LIES, Fault.FORGETS, Fault.HANGS]


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


@pytest.fixture
async def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(blob_client, "SILENCE_MAX_SECONDS", 1.5)
    monkeypatch.setattr(blob_client, "ANSWER_MAX_SECONDS", 1.5)
    async with world(tmp_path, 3) as opened:
        yield opened
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("size", [0, 1, 100_000, CHUNK_BYTES, CHUNK_BYTES + 1, 5 * CHUNK_BYTES])
async def test_the_id_is_the_sha1_and_finds_the_bytes(three: World, size: int) -> None:
    data = Random(size).randbytes(size)
    uploaded = await three.upload(data, {"x-name": "n"})
    assert (uploaded.id, uploaded.size) == (sha1(data), size)
    assert await three.fetch_all(uploaded.id) == (data, {"x-name": "n"})


async def test_a_large_file_is_chunks_and_a_list_under_another_id(three: World) -> None:
    data = Random(1).randbytes(2 * CHUNK_BYTES + 5)
    uploaded = await three.upload(data, {"x-name": "n"})
    kept = three.old[0].blobs
    chunks = [data[:CHUNK_BYTES], data[CHUNK_BYTES : 2 * CHUNK_BYTES], data[2 * CHUNK_BYTES :]]
    assert {name for name in kept if name != list_id(uploaded.id)} == {sha1(chunk) for chunk in chunks}
    listed = ChunkList.decode(kept[list_id(uploaded.id)][0], uploaded.id)
    assert [chunk.id for chunk in listed.chunks] == [sha1(chunk) for chunk in chunks]
    assert uploaded.id not in kept, "an original API server must not find the list instead of the file"
    assert all(not headers for name, (_, headers) in kept.items() if name != list_id(uploaded.id))


@pytest.mark.parametrize("fault", BAD)
@pytest.mark.parametrize("size", [1000, 3 * CHUNK_BYTES + 7])
async def test_a_bad_server_is_passed_by(three: World, fault: Fault, size: int) -> None:
    three.old[0].fault = three.old[1].fault = fault
    data = Random(size).randbytes(size)
    uploaded = await three.upload(data)
    assert uploaded.id == sha1(data)
    for server in three.old[:2]:
        server.fault = Fault.NONE
    three.use()
    assert await three.fetch(uploaded.id) == data


@pytest.mark.parametrize("fault", BAD)
async def test_when_no_server_takes_it_the_upload_fails(three: World, fault: Fault) -> None:
    for server in three.old:
        server.fault = fault
    await refusal(Unavailable, three.upload(b"data"))
    await refusal(Unavailable, three.upload(bytes(3 * CHUNK_BYTES)))


async def test_a_server_that_does_not_read_is_given_up(three: World) -> None:
    three.old[0].fault = Fault.HANGS
    data = Random(2).randbytes(30 * MIB)
    three.uploader = type(three.uploader)(three.fleet, three.spool, 64 * MIB)
    assert (await three.upload(data)).id == sha1(data)
    assert three.holders(sha1(data)) == [1]


async def test_a_dead_server_costs_its_time_once(three: World) -> None:
    three.old[0].fault = Fault.HANGS
    for number in range(3):
        await three.upload(b"%d" % number)
    assert len(three.old[0].requests) == 1
    await three.clock.advance(60)
    three.old[0].fault = Fault.NONE
    await three.upload(b"later")
    assert three.holders(sha1(b"later")) == [0]


async def test_other_bytes_under_the_id_are_no_copy(three: World) -> None:
    three.old[0].immutable = True
    three.old[0].blobs[sha1(b"data")] = b"wrong", {}
    await three.upload(b"data")
    assert three.holders(sha1(b"data")) == [0, 1]
    assert await three.fetch(sha1(b"data")) == b"data"


async def test_roles(three: World) -> None:
    three.use(Role.READ_ONLY, Role.PLAIN, Role.PREFERRED)
    await three.upload(b"one")
    assert three.holders(sha1(b"one")) == [2]
    three.old[2].fault = Fault.FULL
    await three.upload(b"two")
    assert 1 in three.holders(sha1(b"two"))
    three.old[1].fault = Fault.FULL
    await refusal(Unavailable, three.upload(b"three"))
    assert three.old[0].requests == []


async def test_a_client_that_leaves_gets_no_file(three: World) -> None:
    for size in (10, 5 * CHUNK_BYTES):
        await refusal(InvalidRequest, three.uploader.upload(broken(bytes(size)), {}))
    assert not any(name.startswith("chunklist") for server in three.old for name in server.blobs)
    assert three.holders(sha1(bytes(5 * CHUNK_BYTES))) == []


async def test_too_many_headers_are_refused_before_the_body(three: World) -> None:
    await refusal(InvalidRequest, three.upload(b"", {"x-long": "v" * 65 * KIB}))
