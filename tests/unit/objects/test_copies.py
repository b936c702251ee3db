"""Copies by reference: what they hold, what they count, and what a source that changes meanwhile does to them."""

import asyncio
import hashlib

import pytest

from holdfast.core.errors import InvalidRequest
from holdfast.core.limits import MIB, PART_MIN_BYTES
from holdfast.core.ranges import ByteRange
from holdfast.objects.errors import ConditionFailed, MarkedDeleted, NoSuchBucket, NoSuchUpload
from holdfast.objects.model import (
    CompletedPart,
    Conditions,
    CopyOptions,
    CopySource,
    ObjectInfo,
    PutOptions,
    Versioning,
)
from tests.unit.objects.world import World, collect

LARGE = bytes(range(256)) * (2 * MIB // 256) + b"and a little more"
PART = bytes(range(251)) * (PART_MIN_BYTES // 251 + 1)
SMALL = b"kept inline"


@pytest.fixture
async def world() -> World:
    world = await World.open()
    await world.store.create_bucket("other")
    return world


async def read(world: World, key: str, bucket: str = "bucket", version: str | None = None) -> bytes:
    return await collect((await world.store.open_object(bucket, key, version)).read())


async def put(world: World, key: str, body: bytes, **options: object) -> ObjectInfo:
    return await world.store.put_object("bucket", key, body, PutOptions(**options))  # type: ignore[arg-type]


async def put_in_parts(world: World, key: str) -> ObjectInfo:
    upload = await world.store.create_upload("bucket", key, PutOptions())
    parts = [
        await world.store.put_part("bucket", key, upload.id, number, body, PutOptions())
        for number, body in ((1, PART), (2, LARGE))
    ]
    named = [CompletedPart(part.number, part.etag) for part in parts]
    return await world.store.complete_upload("bucket", key, upload.id, named, PutOptions())


@pytest.mark.parametrize("body", [b"", SMALL, LARGE])
async def test_a_copy_is_another_object_of_the_same_bytes(world: World, body: bytes) -> None:
    original = await put(
        world, "a", body, headers={"content-type": "text/x"}, user_metadata={"m": "1"}, tags={"t": "1"}
    )
    before = await world.live_contents()
    copied = await world.store.copy_object(CopySource("bucket", "a"), "other", "b", CopyOptions())
    assert await world.live_contents() == before, "no content is written"
    assert copied.source.etag == original.etag
    found = await world.store.object_info("other", "b")
    assert (found.etag, found.headers, found.user_metadata, found.tags) == (
        original.etag, {"content-type": "text/x"}, {"m": "1"}, {"t": "1"},
    )  # fmt: skip
    await world.store.delete_object("bucket", "a")
    await world.collect_garbage()
    assert await read(world, "b", "other") == body
    await world.store.delete_object("other", "b")
    await world.collect_garbage()
    assert await world.live_contents() == 0


async def test_metadata_can_be_replaced(world: World) -> None:
    await put(world, "a", SMALL, headers={"content-type": "text/x"}, user_metadata={"m": "1"}, tags={"t": "1"})
    options = CopyOptions(headers={"content-type": "text/y"}, user_metadata={}, tags={"u": "2"})
    made = (await world.store.copy_object(CopySource("bucket", "a"), "bucket", "b", options)).made
    assert (made.headers, made.user_metadata, made.tags) == ({"content-type": "text/y"}, {}, {"u": "2"})


@pytest.mark.parametrize("versioning", [None, Versioning.ENABLED, Versioning.SUSPENDED])
async def test_an_object_copied_onto_itself_keeps_its_bytes(world: World, versioning: Versioning | None) -> None:
    if versioning is not None:
        await world.store.set_versioning("bucket", versioning)
    await put(world, "a", LARGE)
    for turn in range(3):
        options = CopyOptions(user_metadata={"turn": str(turn)})
        await world.store.copy_object(CopySource("bucket", "a"), "bucket", "a", options)
    await world.collect_garbage()
    assert await read(world, "a") == LARGE
    assert (await world.store.object_info("bucket", "a")).user_metadata == {"turn": "2"}
    for info in (await world.store.list_versions("bucket")).objects:
        await world.store.delete_object("bucket", "a", info.version)
    await world.collect_garbage()
    assert await world.live_contents() == 0


async def test_a_copy_of_parts_has_the_md5_and_checksums_of_the_whole(world: World) -> None:
    await put_in_parts(world, "a")
    options = CopyOptions(checksum="crc32")
    made = (await world.store.copy_object(CopySource("bucket", "a"), "bucket", "b", options)).made
    assert made.etag == hashlib.md5(PART + LARGE).hexdigest()
    assert set(made.checksums) == {"crc32"}
    assert (await world.store.object_info("bucket", "b")).parts == ()
    await world.store.delete_object("bucket", "a")
    await world.collect_garbage()
    assert await read(world, "b") == PART + LARGE


async def test_versions_and_delete_markers_as_sources(world: World) -> None:
    await world.store.set_versioning("bucket", Versioning.ENABLED)
    old = await put(world, "a", LARGE)
    await put(world, "a", SMALL)
    await world.store.copy_object(CopySource("bucket", "a", old.version), "bucket", "b", CopyOptions())
    assert await read(world, "b") == LARGE
    marker = await world.store.delete_object("bucket", "a")
    with pytest.raises(MarkedDeleted):
        await world.store.copy_object(CopySource("bucket", "a"), "bucket", "c", CopyOptions())
    with pytest.raises(InvalidRequest):
        await world.store.copy_object(CopySource("bucket", "a", marker.version), "bucket", "c", CopyOptions())
    with pytest.raises(NoSuchBucket):
        await world.store.copy_object(CopySource("bucket", "b"), "nowhere", "c", CopyOptions())


async def test_conditions_are_on_the_version_that_the_copy_replaces(world: World) -> None:
    await put(world, "a", LARGE)
    await put(world, "b", SMALL)
    source = CopySource("bucket", "a")
    with pytest.raises(ConditionFailed):
        await world.store.copy_object(source, "bucket", "b", CopyOptions(conditions=Conditions(if_none_match=True)))
    assert await read(world, "b") == SMALL
    await world.collect_garbage()
    assert await world.live_contents() == 1


async def test_a_source_that_is_replaced_meanwhile_is_looked_up_again(world: World) -> None:
    await put(world, "a", LARGE)
    real = world.store._copies._sums
    turns = 0

    async def sums(*arguments: object) -> object:
        nonlocal turns
        turns += 1
        if turns == 1:
            await put(world, "a", LARGE[::-1])
            await world.collect_garbage()
        return await real(*arguments)  # type: ignore[arg-type]

    world.store._copies._sums = sums  # type: ignore[method-assign,assignment]
    await world.store.copy_object(CopySource("bucket", "a"), "bucket", "b", CopyOptions())
    assert turns == 2
    assert await read(world, "b") == LARGE[::-1]
    upload = await world.store.create_upload("bucket", "c", PutOptions())
    turns = 0
    await put(world, "a", LARGE)
    part = (await world.store.copy_part(CopySource("bucket", "a"), None, "bucket", "c", upload.id, 1)).made
    assert part.etag == hashlib.md5(LARGE[::-1]).hexdigest()


async def test_copies_and_overwrites_race_without_losing_bytes(world: World) -> None:
    bodies = [bytes([number]) * (MIB + number) for number in range(6)]
    await put(world, "a", bodies[0])

    async def overwrite() -> None:
        for body in bodies[1:]:
            await put(world, "a", body)
            await world.collect_garbage()

    async def copy(turn: int) -> None:
        for again in range(6):
            await world.store.copy_object(CopySource("bucket", "a"), "bucket", f"b{turn}{again}", CopyOptions())

    await asyncio.gather(overwrite(), copy(0), copy(1))
    await world.collect_garbage()
    for info in (await world.store.list_objects("bucket")).objects:
        body = await read(world, info.key)
        assert body in bodies
        assert hashlib.md5(body).hexdigest() == info.etag
        await world.store.delete_object("bucket", info.key)
    await world.collect_garbage()
    assert await world.live_contents() == 0


@pytest.mark.parametrize("multipart", [False, True])
async def test_parts_are_ranges_of_objects(world: World, multipart: bool) -> None:
    body = PART + LARGE
    await (put_in_parts(world, "a") if multipart else put(world, "a", body))
    await put(world, "small", SMALL)
    before = await world.live_contents()
    upload = await world.store.create_upload("bucket", "b", PutOptions(checksum=("crc32", "COMPOSITE")))
    first, middle = ByteRange(3, 3 + PART_MIN_BYTES), ByteRange(PART_MIN_BYTES - 7, len(body))
    pieces = [("a", first), ("a", middle), ("small", ByteRange(1, 4))]
    if len(body[middle.start :]) < PART_MIN_BYTES:
        pieces[1] = ("a", ByteRange(1, len(body)))
    expected, named = b"", []
    for number, (key, wanted) in enumerate(pieces, 1):
        part = (await world.store.copy_part(CopySource("bucket", key), wanted, "bucket", "b", upload.id, number)).made
        piece = (body if key == "a" else SMALL)[wanted.start : wanted.end]
        assert part.etag == hashlib.md5(piece).hexdigest()
        assert set(part.checksums) == {"crc32"}
        expected += piece
        named.append(CompletedPart(number, part.etag))
    assert await world.live_contents() == before + 1, "only what was inline is written"
    await world.store.complete_upload("bucket", "b", upload.id, named, PutOptions())
    await world.store.delete_object("bucket", "a")
    await world.collect_garbage()
    assert await read(world, "b") == expected
    info = await world.store.object_info("bucket", "b")
    assert len(info.parts) == 3
    assert len(info.part_checksums["crc32"]) == 3
    await world.store.delete_object("bucket", "b")
    await world.store.delete_object("bucket", "small")
    await world.collect_garbage()
    await world.collect_garbage()
    assert await world.live_contents() == 0


async def test_copied_parts_are_replaced_and_aborted(world: World) -> None:
    await put(world, "a", LARGE)
    upload = await world.store.create_upload("bucket", "b", PutOptions())
    for wanted in (None, ByteRange(5, 10), ByteRange(0, 20)):
        await world.store.copy_part(CopySource("bucket", "a"), wanted, "bucket", "b", upload.id, 1)
    await world.store.copy_part(CopySource("bucket", "a"), None, "bucket", "b", upload.id, 2)
    await world.store.delete_object("bucket", "a")
    await world.collect_garbage()
    assert await world.live_contents() == 1
    await world.store.abort_upload("bucket", "b", upload.id)
    await world.collect_garbage()
    assert await world.live_contents() == 0
    with pytest.raises(NoSuchUpload):
        await world.store.copy_part(CopySource("bucket", "a"), None, "bucket", "b", upload.id, 1)


async def test_a_range_past_the_end_is_refused(world: World) -> None:
    await put(world, "a", SMALL)
    upload = await world.store.create_upload("bucket", "b", PutOptions())
    with pytest.raises(InvalidRequest):
        await world.store.copy_part(CopySource("bucket", "a"), ByteRange(0, 99), "bucket", "b", upload.id, 1)


async def test_an_upload_of_very_many_parts_is_aborted(world: World) -> None:
    """More parts than one commit could release."""
    await put(world, "a", LARGE)
    upload = await world.store.create_upload("bucket", "b", PutOptions())
    for number in range(1, 6001):
        await world.store.put_part("bucket", "b", upload.id, number, b"", PutOptions())
    for number in (1, 6000):
        await world.store.copy_part(CopySource("bucket", "a"), None, "bucket", "b", upload.id, number)
    await world.store.abort_upload("bucket", "b", upload.id)
    await world.store.delete_object("bucket", "a")
    assert await world.live_contents() == 0


async def test_an_upload_of_very_many_parts_is_completed(world: World) -> None:
    """More parts than half of what one commit may expect."""
    await put(world, "a", PART)
    upload = await world.store.create_upload("bucket", "b", PutOptions())
    named = []
    for number in range(1, 8301):
        part = (await world.store.copy_part(CopySource("bucket", "a"), None, "bucket", "b", upload.id, number)).made
        named.append(CompletedPart(number, part.etag))
    made = await world.store.complete_upload("bucket", "b", upload.id, named, PutOptions())
    assert made.size == 8300 * len(PART)
    reader = await world.store.open_object("bucket", "b")
    middle = ByteRange(4000 * len(PART) - 3, 4000 * len(PART) + 3)
    assert await collect(reader.read(middle)) == PART[-3:] + PART[:3]
    await world.store.delete_object("bucket", "a")
    await world.store.delete_object("bucket", "b")
    await world.collect_garbage()
    assert await world.live_contents() == 0
