"""Uploads that are completed without some of their parts: what becomes of those, whoever is killed on the way."""

from collections.abc import AsyncIterator, Sequence

import pytest

from holdfast.core.errors import Unavailable
from holdfast.core.ids import Token
from holdfast.core.limits import COMMIT_CHANGES_MAX_COUNT, PART_MIN_BYTES
from holdfast.core.ranges import KeyRange, prefix_range
from holdfast.meta.interface import Change, Expectation, Meta, Put, Row
from holdfast.objects import uploads
from holdfast.objects.errors import NoSuchUpload
from holdfast.objects.model import CompletedPart, ObjectInfo, PutOptions
from holdfast.objects.rows import COMPLETED, CONTENTS, PARTS, ContentRow, PartRow, content_row_key, part_row_key
from tests.unit.objects.world import World

ETAG = "00" * 16
BUCKET, KEY = "bucket", "key"


class Killed(BaseException):
    """The process is no more."""


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = await World.open()
    yield world
    await world.sessions.close()


async def scan(meta: Meta, table: bytes) -> list[Row]:
    whole = prefix_range(table)
    start: bytes | None = whole.start
    found: list[Row] = []
    while start is not None:
        page = await meta.scan(KeyRange(start, whole.end), limit=1000)
        found += [entry for entry in page.entries if isinstance(entry, Row)]
        start = page.resume
    return found


async def upload_of(world: World, count: int) -> str:
    """An upload of so many parts, of which there are only the rows."""
    upload = await world.store.create_upload(BUCKET, KEY, PutOptions())
    session = await world.sessions.current()
    content = ContentRow(1, 1, PART_MIN_BYTES, 1, 0, b"root", None, [], [], ("copies", 1, 0), 1).encode()
    for first in range(1, count + 1, 4000):
        changes = []
        for number in range(first, min(first + 4000, count + 1)):
            name = world.sessions.new_content(session)
            part = PartRow(1, PART_MIN_BYTES, ETAG, 1, {}, name)
            changes += [
                Put(content_row_key(name), content),
                Put(part_row_key(bytes.fromhex(upload.id), number), part.encode()),
            ]
        await world.meta.commit(changes, token=Token(bytes(16)))
    return upload.id


async def complete(world: World, upload: str, numbers: Sequence[int]) -> ObjectInfo:
    wanted = [CompletedPart(number, ETAG) for number in numbers]
    return await world.store.complete_upload(BUCKET, KEY, upload, wanted, PutOptions())


async def check(world: World, count: int) -> None:
    """An object of so many parts is all there is, and each of its contents has one reference."""
    assert (await world.store.object_info(BUCKET, KEY)).size == count * PART_MIN_BYTES
    assert await scan(world.meta, PARTS) == []
    rows = [ContentRow.decode(row.value) for row in await scan(world.meta, CONTENTS)]
    assert sorted(row.refs for row in rows if not row.condemned_ns) == [1] * (count + 1)
    await world.store.delete_object(BUCKET, KEY)
    await world.collect_garbage()
    assert await scan(world.meta, CONTENTS) == []


class Commits:
    """Counts the commits of a world, and ends it before or behind one of them."""

    def __init__(self, world: World) -> None:
        self.count = 0
        self.before: int | None = None
        self.behind: int | None = None
        self.error: BaseException = Killed()
        self._commit = world.rows.commit
        world.rows.commit = self.commit  # type: ignore[method-assign]

    async def commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        self.count += 1
        if self.before is not None and self.count > self.before:
            raise self.error
        await self._commit(changes, expecting, token=token)
        if self.count == self.behind:
            self.before = self.count
            raise self.error

    def heal(self) -> None:
        self.before = self.behind = None


async def test_all_but_one_of_thousands_of_parts(world: World) -> None:
    """Their rows were more than one commit may change, and the completion was refused."""
    count = 5500
    assert count + 2 * (count - 1) > COMMIT_CHANGES_MAX_COUNT
    upload = await upload_of(world, count)
    chosen = [count // 2]
    commits = Commits(world)
    done = await complete(world, upload, chosen)
    assert commits.count == 3
    assert len(done.parts) == len(chosen)
    assert (await complete(world, upload, chosen)).version == done.version
    assert commits.count == 3, "a retry has nothing to do"
    await check(world, len(chosen))


@pytest.mark.parametrize("retried", [False, True], ids=["upkeep", "a retry"])
@pytest.mark.parametrize("behind", [True, False], ids=["behind", "before"])
@pytest.mark.parametrize("commit", [1, 2, 3, 4])
async def test_a_kill_between_the_commits(
    world: World, monkeypatch: pytest.MonkeyPatch, commit: int, behind: bool, retried: bool
) -> None:
    """Either the upload is as it was, or its object is there and its parts go."""
    monkeypatch.setattr(uploads, "_RELEASE_CHANGES_MAX_COUNT", 6)
    upload = await upload_of(world, 8)
    commits = Commits(world)
    if behind:
        commits.behind = commit
    else:
        commits.before = commit - 1
    with pytest.raises(Killed):
        await complete(world, upload, [2, 5])
    commits.heal()
    if commit == 1 and not behind:
        assert len((await world.store.list_parts(BUCKET, KEY, upload))[0]) == 8
        await complete(world, upload, [2, 5])
    else:
        with pytest.raises(NoSuchUpload):
            await world.store.list_parts(BUCKET, KEY, upload)
        if retried:
            assert (await complete(world, upload, [2, 5])).size == 2 * PART_MIN_BYTES
        else:
            assert await world.store.forget_completed(before_ns=0) == 0
    assert commits.count >= 4
    await check(world, 2)


async def test_who_cannot_release_parts_has_completed_all_the_same(world: World) -> None:
    upload = await upload_of(world, 8)
    commits = Commits(world)
    commits.before, commits.error = 1, Unavailable("not now")
    done = await complete(world, upload, [3])
    assert done.size == PART_MIN_BYTES
    assert len(await scan(world.meta, PARTS)) == 7
    later = world.clock.now_ns() + 1
    commits.before = commits.count
    assert await world.store.forget_completed(before_ns=later) == 0, "what knows of the parts stays as long as they do"
    commits.heal()
    assert await world.store.forget_completed(before_ns=later) == 1
    assert await scan(world.meta, COMPLETED) == []
    await check(world, 1)


async def test_a_part_that_is_filed_while_it_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = await upload_of(world, 3)
    compose = world.store._uploads._compose

    async def raced(*given: object, **named: object) -> object:
        await world.store.put_part(BUCKET, KEY, upload, 3, b"another", PutOptions())
        await world.store.put_part(BUCKET, KEY, upload, 7, b"one more", PutOptions())
        return await compose(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store._uploads, "_compose", raced)
    await complete(world, upload, [1, 2])
    await check(world, 2)


async def test_a_part_that_is_filed_while_none_is_left_out(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    upload = await upload_of(world, 2)
    compose = world.store._uploads._compose
    rounds = 0

    async def raced(*given: object, **named: object) -> object:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            await world.store.put_part(BUCKET, KEY, upload, 7, b"one more", PutOptions())
        return await compose(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(world.store._uploads, "_compose", raced)
    await complete(world, upload, [1, 2])
    assert rounds == 2
    await check(world, 2)
