"""A content written anew under another code: readers notice nothing, references stay, the old tree is let go."""

from collections.abc import Sequence
from contextlib import suppress

import pytest

from holdfast.cli.catalogue import RowCatalogue
from holdfast.core.ids import ContentId, Token
from holdfast.core.limits import MIB
from holdfast.core.ranges import ByteRange, prefix_range
from holdfast.erasure import Code, erasure
from holdfast.meta.interface import Change, Expectation, Row
from holdfast.objects.model import CompletedPart, CopyOptions, CopySource, PutOptions
from holdfast.objects.rows import CONTENTS, ContentRow
from holdfast.upkeep.interface import Recoded
from holdfast.upkeep.recode import Recoder, order
from holdfast.upkeep.worker import settle
from tests.unit.objects.world import World, collect

BODY = bytes(range(256)) * (6 * MIB // 256)
PIECE_BYTES = 2 * MIB


async def recode_all(world: World, k: int, m: int) -> int:
    catalogue = RowCatalogue(world.meta, world.contents, world.tags, world.clock, world.randomness)
    recoded = [await catalogue.recode(entry.content, erasure(k, m)) async for entry in catalogue.contents()]
    assert all(one.whole for one in recoded)
    return sum(one.bytes for one in recoded)


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


class Killed(BaseException):
    """kill -9 of who recodes."""


class Deadline:
    """Lets so many commits through; at the next the process is dead, before or after it took effect."""

    def __init__(self, world: World, commits: int, *, after: bool) -> None:
        self._commit = world.meta.commit
        self._left = commits
        self._after = after
        self.came = False

    async def commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        if self.came:
            raise Killed
        if self._left == 0:
            self.came = True
            if self._after:
                await self._commit(changes, expecting, token=token)
            raise Killed
        self._left -= 1
        await self._commit(changes, expecting, token=token)


def in_pieces(world: World) -> RowCatalogue:
    return RowCatalogue(world.meta, world.contents, world.tags, world.clock, world.randomness, PIECE_BYTES)


async def written(world: World, k: int, m: int) -> int:
    """Plain bytes that are live under a code, pieces of contents under way among them."""
    live = [row for row in (await rows(world)).values() if row.root is not None and not row.condemned_ns]
    return sum(row.size for row in live if row.code[1:] == (k, m))


async def recode_by_worker(world: World, k: int, m: int) -> int:
    """As ordered; the bytes that were written."""
    catalogue, done = in_pieces(world), list[int]()
    recode = catalogue.recode

    async def counted(content: ContentId, code: Code) -> Recoded:
        recoded = await recode(content, code)
        done.append(recoded.bytes)
        return recoded

    catalogue.recode = counted  # type: ignore[method-assign]
    await order(catalogue, erasure(k, m), world.clock)
    await settle(Recoder(catalogue, world.clock))
    return sum(done)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_recode_that_is_killed_goes_on_behind_its_last_piece(
    after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of its commits. What was done is not done again, readers notice nothing, and nothing is left over."""
    for commits in range(20):
        world = await World.open(drives=6, code=erasure(4, 2))
        await world.store.put_object("bucket", "key", BODY, PutOptions())
        deadline = Deadline(world, commits, after=after)
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(world.meta, "commit", deadline.commit)
            await recode_by_worker(world, 2, 2)
        reader = await world.store.open_object("bucket", "key")
        assert await collect(reader.read()) == BODY
        done = await written(world, 2, 2)
        assert await recode_by_worker(world, 2, 2) == len(BODY) - done
        assert await written(world, 2, 2) == len(BODY)
        await world.collect_garbage()
        assert await collect(reader.read()) == BODY
        await world.store.delete_object("bucket", "key")
        await world.collect_garbage()
        assert await rows(world) == {}
        if not deadline.came:
            assert commits > len(BODY) // PIECE_BYTES
            return
    raise AssertionError("never came to its end")


async def test_what_happens_to_an_object_in_the_middle_of_its_recode() -> None:
    """Ranges, copies of it and of a part of it are right; when it is deleted, its pieces go with it."""
    world = await World.open(drives=6, code=erasure(4, 2))
    await world.store.put_object("bucket", "key", BODY, PutOptions())
    catalogue = in_pieces(world)
    (entry,) = [entry async for entry in catalogue.contents()]
    assert await catalogue.recode(entry.content, erasure(2, 2)) == Recoded(PIECE_BYTES, whole=False)
    assert [entry.begun async for entry in catalogue.contents()].count(True) == 1
    source = CopySource("bucket", "key")
    await world.store.copy_object(source, "bucket", "copy", CopyOptions())
    upload = await world.store.create_upload("bucket", "part", PutOptions())
    wanted = ByteRange(MIB, 6 * MIB)
    copied = await world.store.copy_part(source, wanted, "bucket", "part", upload.id, 1)
    await world.store.complete_upload("bucket", "part", upload.id, [CompletedPart(1, copied.made.etag)], PutOptions())
    assert await collect((await world.store.open_object("bucket", "copy")).read()) == BODY
    assert await collect((await world.store.open_object("bucket", "part")).read()) == BODY[MIB:]
    for key in ("key", "copy", "part"):
        await world.store.delete_object("bucket", key)
    await world.collect_garbage()
    assert await rows(world) == {}


async def test_a_recode_that_is_taken_back_gives_its_pieces_up() -> None:
    world = await World.open(drives=6, code=erasure(4, 2))
    await world.store.put_object("bucket", "key", BODY, PutOptions())
    catalogue = in_pieces(world)
    (entry,) = [entry async for entry in catalogue.contents()]
    await catalogue.recode(entry.content, erasure(2, 2))
    assert await recode_by_worker(world, 4, 2) == 0
    await world.collect_garbage()
    assert {row.code for row in (await rows(world)).values()} == {("cauchy", 4, 2)}
    assert await written(world, 4, 2) == len(BODY)
    assert await collect((await world.store.open_object("bucket", "key")).read()) == BODY
