"""Many small objects in one commit: the same rows, the same refusals as one by one."""

from typing import Any

import msgspec
import pytest

from holdfast.core.errors import Full, HoldfastError, InvalidName
from holdfast.core.ids import Token
from holdfast.core.ranges import KeyRange
from holdfast.meta.interface import Change, Expectation, Put, Row
from holdfast.objects import publish
from holdfast.objects.errors import ConditionFailed, IncompleteBody, NoSuchBucket
from holdfast.objects.model import Conditions, NewObject, ObjectInfo, PutOptions, Versioning
from holdfast.objects.rows import OBJECTS, VERSIONS, VersionRow
from tests.unit.objects.world import World, collect

TYPED = PutOptions(headers={"content-type": "text/plain"}, user_metadata={"a": "b"}, tags={"c": "d"})


async def rows_of(world: World) -> list[tuple[bytes, Any]]:
    """Every row of a version, without what is drawn at random."""
    found = []
    for table in (OBJECTS, VERSIONS):
        page = await world.meta.scan(KeyRange(table, bytes([table[0] + 1])), limit=1000)
        assert page.resume is None
        for entry in page.entries:
            assert isinstance(entry, Row)
            row = VersionRow.decode(entry.value)
            assert len(row.unique) == 8
            etag = "opaque" if row.etag == f"{row.unique.hex()}-0" else row.etag
            content = b"some" if row.content is not None else None
            found.append((entry.key, msgspec.structs.replace(row, unique=b"", etag=etag, content=content)))
    return found


def some_objects() -> list[NewObject]:
    """New keys, and keys that are there; twice the same; empty, inline and in blocks; with and without an MD5."""
    bodies = [b"", b"x", b"y" * 8192, b"z" * 8193, b"last"]
    new = [NewObject(f"new/{number}", body, TYPED) for number, body in enumerate(bodies)]
    old = [NewObject(f"old/{number}", body, PutOptions()) for number, body in enumerate(bodies)]
    return [*new, *old, new[1], NewObject("new/3", b"now small"), NewObject("no hash", b"1", PutOptions(md5=False))]


@pytest.mark.parametrize("versioning", list(Versioning))
async def test_rows_are_those_of_single_puts(versioning: Versioning) -> None:
    worlds = [await World.open(), await World.open()]
    for world in worlds:
        for number in range(5):
            await world.store.put_object("bucket", f"old/{number}", b"before" * 2000 * number, PutOptions())
        if versioning is not Versioning.OFF:
            await world.store.set_versioning("bucket", Versioning.ENABLED)
            await world.store.put_object("bucket", "old/1", b"kept", PutOptions())
            await world.store.set_versioning("bucket", versioning)
    single, batch = worlds
    expected = [await single.store.put_object("bucket", new.key, new.body, new.options) for new in some_objects()]
    made = await batch.store.put_objects("bucket", some_objects())
    assert await rows_of(batch) == await rows_of(single)
    assert await batch.live_contents() == await single.live_contents()
    for info, other in zip(made, expected, strict=True):
        assert isinstance(info, ObjectInfo)
        assert (info.key, info.size, info.number) == (other.key, other.size, other.number)
    newest = {new.key: bytes(new.body) for new in some_objects()}
    for key, body in newest.items():
        assert await collect((await batch.store.open_object("bucket", key)).read()) == body


async def test_a_refusal_concerns_one_object() -> None:
    world = await World.open()
    await world.store.put_object("bucket", "taken", b"first", PutOptions())
    free = PutOptions(conditions=Conditions(if_none_match=True))

    def refuse(_: object) -> dict[str, str]:
        raise IncompleteBody("no")

    objects = [
        NewObject("taken", b"second", free),
        NewObject("", b""),
        NewObject("long", b"12345", PutOptions(size=4)),
        NewObject("refused", b"", PutOptions(check=refuse)),
        NewObject("free", b"third", free),
        NewObject("free", b"fourth", free),
        NewObject("large", b"5" * 9000, PutOptions(size=4)),
    ]
    made = await world.store.put_objects("bucket", objects)
    kinds = [type(one) for one in made]
    assert kinds == [
        ConditionFailed, InvalidName, IncompleteBody, IncompleteBody, ObjectInfo, ConditionFailed, IncompleteBody,
    ]  # fmt: skip
    assert (await world.store.list_names("bucket")).keys == ("free", "taken")
    assert await collect((await world.store.open_object("bucket", "free")).read()) == b"third"
    with pytest.raises(NoSuchBucket):
        await world.store.put_objects("other", objects)
    assert await world.store.put_objects("bucket", []) == []


async def test_a_batch_is_few_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that another writer overtook is halved until only the keys that he wants are alone."""
    world = await World.open()
    commits: list[int] = []
    real = world.rows.commit
    overtaken = False

    async def commit(changes: list[Change], expecting: list[Expectation], *, token: Token) -> None:
        nonlocal overtaken
        commits.append(sum(isinstance(change, Put) and change.key[:1] == OBJECTS for change in changes))
        if overtaken:
            overtaken = False
            await world.store.put_object("bucket", "5", b"faster", PutOptions())
        await real(changes, expecting, token=token)

    monkeypatch.setattr(world.rows, "commit", commit)
    monkeypatch.setattr("holdfast.objects.store.PUT_BATCH_MAX_COUNT", 8)
    await world.store.set_versioning("bucket", Versioning.ENABLED)
    commits.clear()
    overtaken = True
    made = await world.store.put_objects("bucket", [NewObject(str(number), b"mine") for number in range(20)])
    assert all(isinstance(info, ObjectInfo) for info in made)
    # The first of eight fails, since the other's is in between; its halves go through.
    assert commits == [8, 1, 4, 4, 8, 4]
    five = made[5]
    assert isinstance(five, ObjectInfo)
    assert five.number == 2


async def test_a_batch_of_long_rows_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World.open()
    monkeypatch.setattr(publish, "PUT_BATCH_MAX_BYTES", 10_000)
    await world.store.put_objects("bucket", [NewObject(str(number), b"x" * 4000) for number in range(7)])
    assert (await world.store.list_names("bucket")).keys == tuple(map(str, range(7)))


async def test_what_befalls_a_commit_befalls_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await World.open()

    async def commit(*_: object, **__: object) -> None:
        raise Full("no room")

    monkeypatch.setattr(world.rows, "commit", commit)
    made: list[ObjectInfo | HoldfastError] = await world.store.put_objects(
        "bucket", [NewObject(str(number), b"x") for number in range(3)]
    )
    assert [type(one) for one in made] == [Full] * 3
