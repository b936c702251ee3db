"""Multipart uploads: completion, retries of it, replaced parts, aborts, and what becomes of references."""

import hashlib

import pytest

from holdfast.cli.catalogue import RowCatalogue
from holdfast.core.errors import InvalidRequest, NotFound
from holdfast.core.ids import Token
from holdfast.core.limits import PART_MIN_BYTES, PARTS_MAX_COUNT
from holdfast.core.ranges import prefix_range
from holdfast.meta.interface import Put
from holdfast.objects.errors import (
    BucketNotEmpty,
    EntityTooSmall,
    InvalidPart,
    InvalidPartOrder,
    NoSuchUpload,
)
from holdfast.objects.model import CompletedPart, Part, PutOptions
from holdfast.objects.rows import COMPLETED, ContentRow, Extent, condemned_row_key, content_row_key
from tests.unit.objects.world import World, collect

FIRST = bytes(range(256)) * (PART_MIN_BYTES // 256) + b"and a little more"
LAST = b"the end"


@pytest.fixture
async def world() -> World:
    return await World.open()


async def upload_two(world: World) -> tuple[str, list[Part]]:
    upload = await world.store.create_upload("bucket", "key", PutOptions(headers={"content-type": "text/x"}))
    parts = [
        await world.store.put_part("bucket", "key", upload.id, number, body, PutOptions())
        for number, body in ((3, FIRST), (7, LAST))
    ]
    return upload.id, parts


def named(parts: list[Part]) -> list[CompletedPart]:
    return [CompletedPart(part.number, part.etag) for part in parts]


async def test_parts_become_one_object(world: World) -> None:
    upload, parts = await upload_two(world)
    done = await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    digest = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in (FIRST, LAST))).hexdigest()
    assert done.etag == f"{digest}-2"
    reader = await world.store.open_object("bucket", "key")
    assert reader.info.size == len(FIRST) + len(LAST)
    assert reader.info.parts == (len(FIRST), len(LAST))
    assert reader.info.headers == {"content-type": "text/x"}
    assert await collect(reader.read()) == FIRST + LAST
    assert await world.live_contents() == 3
    with pytest.raises(NoSuchUpload):
        await world.store.list_parts("bucket", "key", upload)


async def test_what_remembers_a_completed_upload_goes_in_time(world: World) -> None:
    """A row of every upload in parts stayed for ever, also when its object and its bucket were gone."""
    upload, parts = await upload_two(world)
    await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    done = world.clock.now_ns()
    assert await world.store.forget_completed(before_ns=done) == 0
    await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    assert await world.store.forget_completed(before_ns=done + 1) == 1
    assert not (await world.meta.scan(prefix_range(COMPLETED), limit=1)).entries
    with pytest.raises(NoSuchUpload):
        await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    assert await collect((await world.store.open_object("bucket", "key")).read()) == FIRST + LAST


async def test_a_retried_complete_is_answered_the_same(world: World) -> None:
    upload, parts = await upload_two(world)
    first = await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    again = await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    assert (again.etag, again.version) == (first.etag, first.version)
    with pytest.raises(NoSuchUpload):
        await world.store.complete_upload("bucket", "key", upload, named(parts[:1]), PutOptions())


async def test_a_replaced_part_and_a_part_left_out_are_released(world: World) -> None:
    upload, parts = await upload_two(world)
    replaced = await world.store.put_part("bucket", "key", upload, 3, FIRST[::-1], PutOptions())
    await world.store.put_part("bucket", "key", upload, 9, b"left out", PutOptions())
    with pytest.raises(InvalidPart):
        await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    await world.store.complete_upload("bucket", "key", upload, named([replaced, parts[1]]), PutOptions())
    reader = await world.store.open_object("bucket", "key")
    assert await collect(reader.read()) == FIRST[::-1] + LAST
    assert await world.live_contents() == 3


async def test_completion_is_checked(world: World) -> None:
    upload, parts = await upload_two(world)
    complete = world.store.complete_upload
    with pytest.raises(InvalidPartOrder):
        await complete("bucket", "key", upload, named(parts[::-1]), PutOptions())
    with pytest.raises(InvalidRequest):
        await complete("bucket", "key", upload, [], PutOptions())
    with pytest.raises(InvalidPart):
        await complete("bucket", "key", upload, [CompletedPart(4, parts[0].etag)], PutOptions())
    small = await world.store.put_part("bucket", "key", upload, 1, b"small", PutOptions())
    with pytest.raises(EntityTooSmall):
        await complete("bucket", "key", upload, named([small, *parts]), PutOptions())


async def test_abort_releases_everything(world: World) -> None:
    upload, _ = await upload_two(world)
    await world.store.abort_upload("bucket", "key", upload)
    assert await world.live_contents() == 0
    with pytest.raises(NoSuchUpload):
        await world.store.put_part("bucket", "key", upload, 1, b"late", PutOptions())
    await world.store.delete_bucket("bucket")


async def test_uploads_in_flight_do_not_keep_a_bucket(world: World) -> None:
    await upload_two(world)
    kept = await world.store.create_upload("bucket", "another", PutOptions())
    await world.store.put_object("bucket", "object", b"abc", PutOptions())
    with pytest.raises(BucketNotEmpty):
        await world.store.delete_bucket("bucket")
    assert len((await world.store.list_uploads("bucket")).uploads) == 2, "a bucket that stays keeps its uploads"
    await world.store.delete_object("bucket", "object")
    await world.store.delete_bucket("bucket")
    assert await world.live_contents() == 0
    await world.store.create_bucket("bucket")
    assert not (await world.store.list_uploads("bucket")).uploads
    with pytest.raises(NoSuchUpload):
        await world.store.abort_upload("bucket", "another", kept.id)


async def test_a_bucket_is_deleted_while_uploads_are_started(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    abort_all = world.store._uploads.abort_all
    turns = 0

    async def late(bucket: str) -> None:
        nonlocal turns
        turns += 1
        await abort_all(bucket)
        if turns == 1:
            await world.store.create_upload("bucket", "late", PutOptions())

    monkeypatch.setattr(world.store._uploads, "abort_all", late)
    await world.store.create_upload("bucket", "early", PutOptions())
    await world.store.delete_bucket("bucket")
    assert turns == 2


async def test_deleting_a_composite_leads_to_the_release_of_its_parts(world: World) -> None:
    upload, parts = await upload_two(world)
    await world.store.complete_upload("bucket", "key", upload, named(parts), PutOptions())
    await world.store.delete_object("bucket", "key")
    assert await world.live_contents() == 2, "the composite is condemned, its parts wait for its end"
    await world.collect_garbage()
    assert await world.live_contents() == 0


async def test_uploads_are_listed_in_order(world: World) -> None:
    for key in ("b", "a/1", "a/2", "c", "b"):
        await world.store.create_upload("bucket", key, PutOptions())
    page = await world.store.list_uploads("bucket")
    assert [upload.key for upload in page.uploads] == ["a/1", "a/2", "b", "b", "c"]
    folded = await world.store.list_uploads("bucket", delimiter="/")
    assert (folded.prefixes, [u.key for u in folded.uploads]) == (("a/",), ["b", "b", "c"])
    first = await world.store.list_uploads("bucket", limit=3)
    assert first.resume is not None
    rest = await world.store.list_uploads("bucket", after=first.resume)
    assert [u.id for u in first.uploads + rest.uploads] == [u.id for u in page.uploads]


@pytest.mark.parametrize("limit", [1, 2, 1000])
async def test_a_delimiter_in_an_upload_id_is_none(world: World, limit: int) -> None:
    """Ids are random bytes: among sixty there is every delimiter, sooner or later."""
    keys = [f"{letter}/{number}" for letter in "ab" for number in range(5)] + [f"top{number}" for number in range(50)]
    for key in keys:
        await world.store.create_upload("bucket", key, PutOptions())
    for delimiter, prefix, folded, rest in (
        ("/", "", ["a/", "b/"], 50),
        ("/", "a/", [], 5),
        ("/", "b", ["b/"], 0),
        ("op", "t", ["top"], 0),
        ("?", "", [], 60),
    ):
        prefixes: list[str] = []
        uploads: list[str] = []
        after: tuple[str, str] | None = ("", "")
        while after is not None:
            page = await world.store.list_uploads(
                "bucket", prefix=prefix, delimiter=delimiter, after=after, limit=limit
            )
            assert 0 < len(page.prefixes) + len(page.uploads) <= limit
            prefixes += page.prefixes
            uploads += [upload.id for upload in page.uploads]
            after = page.resume
        assert (prefixes, len(uploads), len(set(uploads))) == (folded, rest, rest)


async def test_a_composite_of_ten_thousand_contents_is_forgotten(world: World) -> None:
    """More than one commit may change."""
    session = await world.sessions.current()
    contents = [world.sessions.new_content(session) for _ in range(PARTS_MAX_COUNT)]
    simple = ContentRow(1, 1, 1, 1, 0, b"root", None, [], [], ("copies", 1, 0), 1)
    whole = world.sessions.new_content(session)
    composite = ContentRow(
        1, 0, len(contents), 1, 1, None, None, [Extent(c, 0, 1) for c in contents], [], ("", 0, 0), 0
    )
    for first in range(0, len(contents), 1000):
        rows = [Put(content_row_key(content), simple.encode()) for content in contents[first : first + 1000]]
        await world.meta.commit(rows, token=Token(bytes(16)))
    await world.meta.commit(
        [Put(content_row_key(whole), composite.encode()), Put(condemned_row_key(1, whole), b"")],
        token=Token(bytes(16)),
    )
    catalogue = RowCatalogue(world.meta, world.contents, world.tags, world.clock, world.randomness)
    await catalogue.forget(whole)
    with pytest.raises(NotFound):
        await world.meta.get(content_row_key(whole))
    row = await world.meta.get(content_row_key(contents[-1]))
    assert ContentRow.decode(row.value).refs == 0


async def test_what_was_started_before_a_time_is_aborted(world: World) -> None:
    old, _ = await upload_two(world)
    await world.clock.advance(100)
    limit = world.clock.now_ns()
    young = await world.store.create_upload("bucket", "key", PutOptions())
    assert await world.store.abort_uploads("bucket", before_ns=limit) == 1
    assert await world.store.abort_uploads("bucket", before_ns=limit) == 0
    with pytest.raises(NoSuchUpload):
        await world.store.list_parts("bucket", "key", old)
    assert await world.store.list_parts("bucket", "key", young.id) == ([], False)
    assert await world.live_contents() == 0
