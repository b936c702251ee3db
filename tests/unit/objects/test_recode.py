"""A content written anew under another code: readers notice nothing, references stay, the old tree is let go."""

from holdfast.cli.catalogue import RowCatalogue
from holdfast.core.ids import ContentId
from holdfast.core.limits import MIB
from holdfast.core.ranges import ByteRange, prefix_range
from holdfast.erasure import erasure
from holdfast.meta.interface import Row
from holdfast.objects.model import CompletedPart, PutOptions
from holdfast.objects.rows import CONTENTS, ContentRow
from tests.unit.objects.world import World, collect

BODY = bytes(range(256)) * (6 * MIB // 256)


async def recode_all(world: World, k: int, m: int) -> int:
    catalogue = RowCatalogue(world.meta, world.contents, world.tags, world.clock, world.randomness)
    return sum([await catalogue.recode(entry.content, erasure(k, m)) async for entry in catalogue.contents()])


async def rows(world: World) -> dict[ContentId, ContentRow]:
    page = await world.meta.scan(prefix_range(CONTENTS), limit=1000)
    return {
        ContentId(entry.key[1:]): ContentRow.decode(entry.value) for entry in page.entries if isinstance(entry, Row)
    }


async def test_an_object_reads_the_same_after_two_changes_of_the_code() -> None:
    world = await World.open(drives=6, code=erasure(4, 2))
    await world.store.put_object("bucket", "key", BODY, PutOptions())
    reader = await world.store.open_object("bucket", "key")
    assert await recode_all(world, 2, 2) == len(BODY)
    assert await recode_all(world, 2, 2) == 0, "there is nothing to do twice"
    assert await recode_all(world, 3, 3) == len(BODY)
    assert await collect(reader.read()) == BODY
    assert await collect(reader.read(ByteRange(3 * MIB - 5, 4 * MIB + 7))) == BODY[3 * MIB - 5 : 4 * MIB + 7]
    await world.collect_garbage()
    assert await collect(reader.read()) == BODY
    codes = {row.code for row in (await rows(world)).values() if row.root is not None}
    assert codes == {("cauchy", 3, 3)}


async def test_parts_are_recoded_under_a_composite() -> None:
    world = await World.open()
    upload = await world.store.create_upload("bucket", "key", PutOptions())
    parts = [
        await world.store.put_part("bucket", "key", upload.id, number, BODY[:size], PutOptions())
        for number, size in ((1, 6 * MIB), (2, 5 * MIB), (3, 17))
    ]
    named = [CompletedPart(part.number, part.etag) for part in parts]
    await world.store.complete_upload("bucket", "key", upload.id, named, PutOptions())
    whole = BODY + BODY[: 5 * MIB] + BODY[:17]
    await recode_all(world, 2, 2)
    await world.collect_garbage()
    reader = await world.store.open_object("bucket", "key")
    assert await collect(reader.read()) == whole
    assert await collect(reader.read(ByteRange(6 * MIB - 3, 11 * MIB + 9))) == whole[6 * MIB - 3 : 11 * MIB + 9]


async def test_nothing_is_left_of_a_deleted_object() -> None:
    world = await World.open()
    await world.store.put_object("bucket", "key", BODY, PutOptions())
    await recode_all(world, 2, 2)
    await world.store.delete_object("bucket", "key")
    await world.collect_garbage()
    assert await rows(world) == {}
