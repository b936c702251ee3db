"""Downloads past servers that are dead, slow or wrong: the right bytes to the end, or an error; never others."""

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from holdfast.core.errors import Corrupt, NotFound, Unavailable
from holdfast.core.limits import KIB, MIB
from holdfast.gateways.sos import blob_client, fetch
from holdfast.gateways.sos.chunks import Chunk, ChunkList, list_id
from holdfast.testing.blob_suite import refusal
from holdfast.testing.old_sos import Fault
from tests.unit.gateways.sos.world import CHUNK_BYTES, World, sha1, world

SMALL = Random(1).randbytes(50 * KIB)
LARGE = Random(2).randbytes(6 * MIB)


@pytest.fixture
async def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(blob_client, "SILENCE_MAX_SECONDS", 1.5)
    monkeypatch.setattr(fetch, "SILENCE_MAX_SECONDS", 1.5)
    monkeypatch.setattr(fetch, "IMPATIENT_SECONDS", 0.5)
    async with world(tmp_path, 3) as opened:
        yield opened


def keep(three: World, data: bytes, *numbers: int, headers: dict[str, str] | None = None) -> str:
    """Put a blob on these servers, behind the back of the API server."""
    for number in numbers:
        three.old[number].blobs[sha1(data)] = data, headers or {}
    return sha1(data)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE])
@pytest.mark.parametrize("place", [0, 2])
async def test_found_wherever_it_is(three: World, data: bytes, place: int) -> None:
    name = keep(three, data, place, headers={"X-Name": "n"})
    assert await three.fetch_all(name) == (data, {"x-name": "n"})


async def test_headers_keep_their_bytes(three: World) -> None:
    """Each byte is a character here. What is UTF-8 comes back as it was."""
    for value, back in (("plain", "plain"), ("caf\xc3\xa9", "caf\xc3\xa9"), ("caf\xe9", "caf\xc3\xa9")):
        uploaded = await three.upload(value.encode("latin-1"), {"x-name": value})
        assert (await three.fetch_all(uploaded.id))[1] == {"x-name": back}


async def test_what_nobody_has_is_not_found(three: World) -> None:
    for name in (sha1(b"nothing"), "foo", list_id(sha1(b"nothing"))):
        await refusal(NotFound, three.fetcher.open(name))
        await refusal(NotFound, three.fetcher.head(name))


@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.ERROR_PAGE])
async def test_what_could_not_be_asked_for_is_not_called_missing(three: World, fault: Fault) -> None:
    three.old[1].fault = fault
    kind = Unavailable if fault is Fault.HANGS else Corrupt
    await refusal(kind, three.fetcher.open(sha1(b"nothing")))


@pytest.mark.parametrize("data", [SMALL, LARGE])
@pytest.mark.parametrize("fault", [Fault.HANGS, Fault.ERROR_PAGE, Fault.BREAKS_OFF, Fault.STALLS])
async def test_a_bad_server_is_passed_by(three: World, data: bytes, fault: Fault) -> None:
    name = keep(three, data, 0, 1, 2)
    three.old[0].fault = three.old[1].fault = fault
    assert await three.fetch(name) == data


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_a_truncated_copy_is_passed_by(three: World, data: bytes) -> None:
    name = keep(three, data, 2)
    three.old[0].blobs[name] = data[: len(data) // 2], {}
    three.old[1].blobs[name] = data[:-1], {}
    assert await three.fetch(name) == data
    # They are asked last from now on.
    before = len(three.old[0].requests)
    assert await three.fetch(name) == data
    assert len(three.old[0].requests) == before


async def test_wrong_bytes_at_the_end_of_a_long_copy_are_never_handed_on(three: World) -> None:
    name = keep(three, LARGE, 1)
    three.old[0].blobs[name] = LARGE[:-1] + b"\0", {}
    assert await three.fetch(name) == LARGE


async def test_wrong_bytes_that_were_handed_on_end_in_an_error(three: World) -> None:
    name = keep(three, LARGE, 1)
    three.old[0].blobs[name] = b"\0" + LARGE[1:], {}
    await refusal(Corrupt, three.fetch(name))
    # The client asks again, and gets the good copy.
    assert await three.fetch(name) == LARGE


@pytest.mark.parametrize("data", [SMALL, LARGE])
async def test_wrong_on_every_server_is_an_error(three: World, data: bytes) -> None:
    name = sha1(data)
    for server in three.old:
        server.blobs[name] = data[:-1] + b"\0", {}
    await refusal(Corrupt, three.fetch(name))


async def test_a_server_that_broke_off_is_asked_again_when_no_other_has_it(three: World) -> None:
    data = LARGE * 3
    name = keep(three, data, 0)
    three.old[0].fault = Fault.BREAKS_OFF
    file = await three.fetcher.open(name)
    first = await anext(file.pieces)
    three.old[0].fault = Fault.NONE
    assert first + b"".join([piece async for piece in file.pieces]) == data


async def test_a_slow_server_is_waited_for_when_no_other_has_it(three: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "IMPATIENT_SECONDS", 0.000001)
    name = keep(three, SMALL, 1)
    assert await three.fetch(name) == SMALL


async def test_where_it_was_found_is_asked_first(three: World) -> None:
    name = keep(three, SMALL, 2)
    await three.fetch(name)
    before = [len(server.requests) for server in three.old]
    await three.fetch(name)
    assert [len(server.requests) for server in three.old] == [before[0], before[1], before[2] + 1]
    # It is a hint, no more.
    del three.old[2].blobs[name]
    keep(three, SMALL, 0)
    assert await three.fetch(name) == SMALL


async def test_without_memory_to_hold_it_a_download_is_compared_as_it_goes(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "HOLD_TOTAL_MAX_BYTES", 0)
    name = keep(three, SMALL, 0)
    assert await three.fetch(name) == SMALL
    three.use()
    three.old[0].blobs[name] = SMALL[:-1], {}
    await refusal(Corrupt, three.fetch(name))


async def test_what_is_held_is_given_back(three: World) -> None:
    name = keep(three, SMALL, 0)
    for _ in range(3):
        await three.fetch(name)
    three.old[0].blobs[name] = SMALL[:-1], {}
    await refusal(Corrupt, three.fetch(name))
    file = await three.fetcher.open(keep(three, LARGE, 1))
    await anext(file.pieces)
    await file.pieces.aclose()
    assert three.fetcher._held == 0


async def test_an_id_that_is_no_sha1_is_handed_out_as_it_is(three: World) -> None:
    three.old[1].blobs["foo"] = b"bar", {}
    assert await three.fetch("foo") == b"bar"


async def test_head(three: World) -> None:
    uploaded = await three.upload(SMALL, {"x-name": "n"})
    assert await three.fetcher.head(uploaded.id) == (None, {})  # an original server says nothing more
    large = await three.upload(bytes(3 * CHUNK_BYTES), {"x-name": "large"})
    assert await three.fetcher.head(large.id) == (3 * CHUNK_BYTES, {"x-name": "large"})


# Large files


async def test_chunks_may_be_on_any_server(three: World) -> None:
    data = Random(3).randbytes(5 * CHUNK_BYTES + 9)
    uploaded = await three.upload(data)
    for number, name in enumerate(list(three.old[0].blobs)):
        three.old[number % 3].blobs[name] = three.old[0].blobs.pop(name)
    three.use()
    assert await three.fetch(uploaded.id) == data


async def test_an_original_server_may_have_it_whole(three: World) -> None:
    data = Random(4).randbytes(3 * CHUNK_BYTES)
    name = keep(three, data, 1)
    assert await three.fetch(name) == data


async def test_a_missing_chunk_is_an_error(three: World) -> None:
    data = Random(5).randbytes(3 * CHUNK_BYTES)
    uploaded = await three.upload(data)
    del three.old[0].blobs[sha1(data[CHUNK_BYTES : 2 * CHUNK_BYTES])]
    await refusal(Unavailable, three.fetch(uploaded.id))


@pytest.mark.parametrize("wrong", ["damaged", "of another file", "of other chunks"])
async def test_a_wrong_list_is_not_believed(three: World, wrong: str) -> None:
    data = Random(6).randbytes(3 * CHUNK_BYTES)
    uploaded = await three.upload(data)
    listed = three.old[0].blobs[list_id(uploaded.id)][0]
    kept = ChunkList.decode(listed, uploaded.id)
    forged = {
        "damaged": listed[:-10] + b"xxxxxxxxx\n",
        "of another file": ChunkList("0" * 40, kept.chunks).encode(),
        "of other chunks": ChunkList(uploaded.id, [kept.chunks[1], kept.chunks[0], kept.chunks[2]]).encode(),
    }[wrong]
    three.old[0].blobs[list_id(uploaded.id)] = forged, {}
    await refusal(Corrupt, three.fetch(uploaded.id))
    three.old[1].blobs[list_id(uploaded.id)] = listed, {}
    if wrong != "of other chunks":
        assert await three.fetch(uploaded.id) == data


async def test_a_list_that_lies_about_a_size_is_an_error(three: World) -> None:
    data = Random(7).randbytes(2 * CHUNK_BYTES)
    uploaded = await three.upload(data)
    kept = ChunkList.decode(three.old[0].blobs[list_id(uploaded.id)][0], uploaded.id)
    forged = ChunkList(uploaded.id, [Chunk(kept.chunks[0].id, 1), kept.chunks[1]])
    three.old[0].blobs[list_id(uploaded.id)] = forged.encode(), {}
    file = await three.fetcher.open(uploaded.id)
    with pytest.raises(Corrupt):
        async for _ in file.pieces:
            pass
