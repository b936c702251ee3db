"""Bodies on their way in: cut right, hashed right, refused whole, and every buffer given back."""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.errors import InvalidRequest, Timeout
from holdfast.core.ids import Buffer, Token
from holdfast.core.limits import MIB
from holdfast.core.ranges import ByteRange, prefix_range
from holdfast.meta.interface import Delete, Row
from holdfast.objects.buffers import BufferPool, Lease
from holdfast.objects.errors import BadDigest, ConditionFailed, IncompleteBody, NoSuchObject, SessionExpired
from holdfast.objects.model import Conditions, CopyOptions, CopySource, Digests, PutOptions
from holdfast.objects.rows import CONTENTS, ContentRow, session_row_key
from holdfast.objects.store import BUFFERS_BYTES
from tests.unit.objects.world import World, collect, run


def body_of(length: int) -> bytes:
    return (b"%07d." % length * (length // 8 + 1))[:length]


async def in_chunks(data: bytes, size: int) -> AsyncIterator[Buffer]:
    scratch = bytearray(size)
    for start in range(0, len(data), size):
        piece = data[start : start + size]
        scratch[: len(piece)] = piece
        yield memoryview(scratch)[: len(piece)]
        # The contract lets a gateway reuse its buffer once the next chunk is asked for.
        scratch[:] = bytes(size)


async def free_bytes(world: World) -> int:
    """Buffers of the store's pool that nobody holds."""
    pool = world.store._pool
    return sum(length * len(free) for length, free in pool._free.items()) + pool._unmade


@settings(max_examples=15, deadline=None)
@given(
    length=st.sampled_from([0, 1, 8191, 8192, 8193, MIB - 1, MIB, MIB + 1, 3 * MIB + 17]),
    chunk=st.sampled_from([1000, 65536, 3 * MIB]),
    cut=st.integers(0, 3 * MIB),
)
def test_what_goes_in_comes_out(length: int, chunk: int, cut: int) -> None:
    run(_in_and_out(length, chunk, cut))


async def _in_and_out(length: int, chunk: int, cut: int) -> None:
    world = await World.open()
    data = body_of(length)
    info = await world.store.put_object("bucket", "key", in_chunks(data, chunk), PutOptions(digests=("sha256",)))
    assert info.etag == hashlib.md5(data).hexdigest()
    assert info.size == length
    reader = await world.store.open_object("bucket", "key")
    assert await collect(reader.read()) == data
    if cut < length:
        assert await collect(reader.read(ByteRange(cut, length))) == data[cut:]
        assert await collect(reader.read(ByteRange(0, cut + 1))) == data[: cut + 1]
    with pytest.raises(InvalidRequest):
        await collect(reader.read(ByteRange(0, length + 1)))
    assert await free_bytes(world) == BUFFERS_BYTES
    await world.close()


async def test_a_body_without_md5_is_hashed_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World.open()
    monkeypatch.setattr(hashlib, "new", None)
    etags = set()
    for length in (0, 5, 9000, 2 * MIB + 5):
        data = body_of(length)
        info = await world.store.put_object("bucket", "key", in_chunks(data, 65536), PutOptions(md5=False))
        found = await world.store.open_object("bucket", "key")
        assert found.info == info
        assert re.fullmatch("[0-9a-f]{16}-0", info.etag)
        assert await collect(found.read()) == data
        etags.add(info.etag)
    assert len(etags) == 4
    monkeypatch.undo()
    copied = await world.store.copy_object(CopySource("bucket", "key"), "bucket", "copy", CopyOptions())
    assert copied.made.etag == hashlib.md5(body_of(2 * MIB + 5)).hexdigest()
    await world.close()


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("length", [11, 9000])
async def test_a_body_beyond_its_limit_is_refused(length: int, whole: bool) -> None:
    world = await World.open()
    data = body_of(length)
    body = data if whole else in_chunks(data, 1000)
    with pytest.raises(InvalidRequest, match=f"more than {length - 1} bytes"):
        await world.store.put_object("bucket", "key", body, PutOptions(size_max=length - 1))
    assert (await world.store.put_object("bucket", "key", data, PutOptions(size_max=length))).size == length
    assert await world.live_contents() == (length > 8192)
    await world.close()


async def test_digests_are_of_the_whole_body() -> None:
    world = await World.open()
    data = body_of(2 * MIB + 5)
    seen: list[Digests] = []

    def check(digests: Digests) -> Mapping[str, str]:
        seen.append(digests)
        return {"sha256": digests.values["sha256"].hex()}

    options = PutOptions(digests=("sha256", "crc32c"), check=check)
    info = await world.store.put_object("bucket", "key", in_chunks(data, 70_000), options)
    assert seen[0].size == len(data)
    assert info.checksums == {"sha256": hashlib.sha256(data).hexdigest()}
    assert seen[0].values.keys() == {"md5", "sha256", "crc32c"}


async def breaking(data: bytes) -> AsyncIterator[Buffer]:
    yield data
    raise ConnectionResetError("the client is gone")


@pytest.mark.parametrize("length", [100, 3 * MIB])
async def test_nothing_is_seen_of_a_refused_body(length: int) -> None:
    def refuse(digests: Digests) -> Mapping[str, str]:
        raise BadDigest("not what was announced")

    world = await World.open()
    data = body_of(length)
    with pytest.raises(BadDigest):
        await world.store.put_object("bucket", "key", in_chunks(data, 65536), PutOptions(check=refuse))
    with pytest.raises(IncompleteBody):
        await world.store.put_object("bucket", "key", in_chunks(data, 65536), PutOptions(size=length + 1))
    with pytest.raises(ConnectionResetError):
        await world.store.put_object("bucket", "key", breaking(data), PutOptions())
    with pytest.raises(NoSuchObject):
        await world.store.open_object("bucket", "key")
    assert await world.live_contents() == 0
    assert await free_bytes(world) == BUFFERS_BYTES


async def test_a_cancelled_upload_gives_its_buffers_back() -> None:
    world = await World.open()
    stalled = asyncio.Event()

    async def stalling() -> AsyncIterator[Buffer]:
        yield body_of(2 * MIB + 100)
        stalled.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(world.store.put_object("bucket", "key", stalling(), PutOptions()))
    await stalled.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload
    assert await free_bytes(world) == BUFFERS_BYTES


async def test_an_expired_session_publishes_nothing() -> None:
    world = await World.open()
    session = await world.sessions.current()
    await world.meta.commit([Delete(session_row_key(session.id))], token=Token(bytes(16)))
    with pytest.raises(SessionExpired):
        await world.store.put_object("bucket", "key", body_of(MIB), PutOptions())
    with pytest.raises(NoSuchObject):
        await world.store.open_object("bucket", "key")
    await world.store.put_object("bucket", "key", body_of(MIB), PutOptions())
    assert (await world.store.object_info("bucket", "key")).size == MIB


async def test_an_overwritten_object_is_still_read_by_who_had_it_open() -> None:
    world = await World.open()
    old, new = body_of(2 * MIB), body_of(2 * MIB)[::-1]
    await world.store.put_object("bucket", "key", old, PutOptions())
    reader = await world.store.open_object("bucket", "key")
    await world.store.put_object("bucket", "key", new, PutOptions())
    assert await collect(reader.read()) == old


async def test_the_pool_makes_waiters_wait_their_turn() -> None:
    pool = BufferPool(4096, 4096)
    first = await pool.acquire(4096)
    second = asyncio.create_task(pool.acquire(4096))
    third = asyncio.create_task(pool.acquire(4096))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.sleep(0)
    pool.release(first)
    assert await third is first


async def test_a_buffer_handed_over_while_its_waiter_gives_up_is_not_lost() -> None:
    pool = BufferPool(4096, 4096)
    first = await pool.acquire(4096)
    waiter = asyncio.create_task(pool.acquire(4096))
    await asyncio.sleep(0)
    pool.release(first)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert await pool.acquire(4096) is first


async def test_who_waits_too_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("holdfast.objects.buffers.WAIT_MAX_SECONDS", 0.01)
    pool = BufferPool(4096, 4096)
    with Lease(pool) as lease:
        await lease.acquire(4096)
        with pytest.raises(Timeout):
            await pool.acquire(4096)
    await pool.acquire(4096)


async def test_who_wants_a_long_buffer_gets_a_short_one_when_room_is_short() -> None:
    pool = BufferPool(4096, 4 * 4096)
    long = await pool.acquire(8192)
    short = await pool.acquire(4096)
    assert [len(long), len(short), len(await pool.acquire(8192))] == [8192, 4096, 4096]
    waiters = [asyncio.create_task(pool.acquire(8192)) for _ in range(2)]
    await asyncio.sleep(0)
    pool.release(long)
    # What was one long buffer serves both.
    assert [len(buffer) for buffer in await asyncio.gather(*waiters)] == [4096, 4096]


async def test_between_long_and_short_there_are_half_as_long_ones() -> None:
    pool = BufferPool(4096, 7 * 4096)
    assert [len(await pool.acquire(4 * 4096)) // 4096 for _ in range(3)] == [4, 2, 1]


async def test_short_buffers_that_lie_idle_make_room_for_a_long_one() -> None:
    pool = BufferPool(4096, 4 * 4096)
    for buffer in [await pool.acquire(4096) for _ in range(4)]:
        pool.release(buffer)
    assert len(await pool.acquire(8192)) == 8192
    assert len(await pool.acquire(8192)) == 8192


async def test_blocks_grow_behind_the_first_ones() -> None:
    world = await World.open()
    await world.store.put_object("bucket", "key", in_chunks(body_of(7 * MIB), 100_000), PutOptions())
    reader = await world.store.open_object("bucket", "key")
    assert [len(piece) async for piece in reader.read()] == [MIB, MIB, 2 * MIB, 2 * MIB, MIB]


@pytest.mark.parametrize(
    ("length", "said", "buffers"),
    [
        (7 * MIB - 1, "exactly", [1, 1, 2, 2, 2]),
        (7 * MIB, "exactly", [4, 4]),
        (9 * MIB + 1, "exactly", [4, 4, 4]),
        (7 * MIB - 1, "about", [4, 4]),
    ],
)
async def test_bodies_known_to_be_long_fill_longer_buffers(
    monkeypatch: pytest.MonkeyPatch, length: int, said: str, buffers: list[int]
) -> None:
    """Their blocks are no longer for it."""
    taken: list[int] = []

    async def noting(lease: Lease, length: int) -> memoryview:
        taken.append(length // MIB)
        return await acquire(lease, length)

    acquire = Lease.acquire
    monkeypatch.setattr(Lease, "acquire", noting)
    monkeypatch.setattr("holdfast.objects.ingest.STRETCHED_FROM_BYTES", 7 * MIB)
    world = await World.open()
    data = body_of(length)
    options = PutOptions(size=length) if said == "exactly" else PutOptions(size_hint=length + 100)
    await world.store.put_object("bucket", "key", in_chunks(data, 300_000), options)
    assert taken == buffers
    pieces = [bytes(piece) async for piece in (await world.store.open_object("bucket", "key")).read()]
    assert b"".join(pieces) == data
    assert [len(piece) for piece in pieces[:-1]] == [MIB, MIB, *[2 * MIB] * (len(pieces) - 3)]
    await world.close()


async def condemned_bytes(world: World) -> int:
    page = await world.meta.scan(prefix_range(CONTENTS), limit=1000)
    rows = [ContentRow.decode(entry.value) for entry in page.entries if isinstance(entry, Row)]
    return sum(row.size for row in rows if row.condemned_ns and not row.refs)


async def test_what_a_broken_upload_wrote_is_condemned_at_once() -> None:
    world = await World.open()
    with pytest.raises(ConnectionResetError):
        await world.store.put_object("bucket", "key", breaking(body_of(3 * MIB)), PutOptions())
    await asyncio.sleep(0)
    assert await condemned_bytes(world) <= 3 * MIB
    absent = PutOptions(conditions=Conditions(if_none_match=True))
    await world.store.put_object("bucket", "key", body_of(MIB), absent)
    before = await condemned_bytes(world)
    with pytest.raises(ConditionFailed):
        await world.store.put_object("bucket", "key", body_of(2 * MIB), absent)
    assert await condemned_bytes(world) == before + 2 * MIB
    await world.collect_garbage()
    reader = await world.store.open_object("bucket", "key")
    assert await collect(reader.read()) == body_of(MIB)
