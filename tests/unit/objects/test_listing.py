"""Listings against an oracle that sorts and folds a plain list."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.core.ids import Token
from holdfast.meta.interface import Put
from holdfast.objects.model import NewObject, PutOptions, Versioning
from holdfast.objects.rows import object_row_key
from tests.unit.objects.world import World, run

KEYS = st.lists(st.text(alphabet="a/\x00bü", min_size=1, max_size=6), max_size=25, unique=True)


def expected(keys: list[str], prefix: str, delimiter: str, after: str) -> list[tuple[str, bool]]:
    """Entries (name, folded) in order. A page that ended with a folded prefix goes on behind all of it."""
    entries: dict[tuple[str, bool], None] = {}
    for key in sorted(keys, key=str.encode):
        if not key.startswith(prefix):
            continue
        cut = key.find(delimiter, len(prefix)) if delimiter else -1
        name, folded = (key[: cut + len(delimiter)], True) if cut >= 0 else (key, False)
        skipped = after
        if delimiter and after.startswith(prefix) and (stop := after.find(delimiter, len(prefix))) >= 0:
            skipped = after[: stop + len(delimiter)]
            if name == skipped:
                continue
        if name.encode() > skipped.encode():
            entries[(name, folded)] = None
    return list(entries)


@settings(max_examples=60, deadline=None)
@given(
    keys=KEYS,
    marked=st.sets(st.integers(0, 24)),
    prefix=st.sampled_from(["", "a", "a/", "\x00"]),
    delimiter=st.sampled_from(["", "/", "\x00", "ab"]),
    after=st.sampled_from(["", "a", "a/", "a/b", "b"]),
    limit=st.integers(1, 7),
)
def test_pages_add_up(keys: list[str], marked: set[int], prefix: str, delimiter: str, after: str, limit: int) -> None:
    run(_pages_add_up(keys, marked, prefix, delimiter, after, limit))


async def _pages_add_up(keys: list[str], marked: set[int], prefix: str, delimiter: str, after: str, limit: int) -> None:
    world = await World.open()
    await world.store.set_versioning("bucket", Versioning.ENABLED)
    for position, key in enumerate(keys):
        await world.store.put_object("bucket", key, b"", PutOptions())
        if position in marked:
            await world.store.delete_object("bucket", key)
    shown = [key for position, key in enumerate(keys) if position not in marked]
    found: list[tuple[str, bool]] = []
    resume = None
    while True:
        page = await world.store.list_objects(
            "bucket", prefix=prefix, delimiter=delimiter, after=after, resume=resume, limit=limit
        )
        entries = [(info.key, False) for info in page.objects] + [(name, True) for name in page.prefixes]
        assert len(entries) <= limit
        found += sorted(entries, key=lambda entry: entry[0].encode())
        if page.resume is None:
            break
        assert len(entries) == limit, "a page that is not the last is full"
        resume = page.resume
    assert found == expected(shown, prefix, delimiter, after)
    assert await names(world, prefix, after, limit) == [name for name, _ in expected(shown, prefix, "", after)]
    await world.close()


async def names(world: World, prefix: str, after: str, limit: int) -> list[str]:
    found: list[str] = []
    resume = None
    while True:
        page = await world.store.list_names("bucket", prefix=prefix, after=after, resume=resume, limit=limit)
        found += page.keys
        if page.resume is None:
            return found
        assert len(page.keys) == limit, "a page that is not the last is full"
        resume = page.resume


@settings(max_examples=30, deadline=None)
@given(keys=KEYS, prefix=st.sampled_from(["", "a/"]), after=st.sampled_from(["", "a/b"]), limit=st.integers(1, 7))
def test_names_alone(keys: list[str], prefix: str, after: str, limit: int) -> None:
    run(_names_alone(keys, prefix, after, limit))


async def _names_alone(keys: list[str], prefix: str, after: str, limit: int) -> None:
    """Where no versions were ever kept, no row is opened: here none could be."""
    world = await World.open()
    await world.store.put_objects("bucket", [NewObject(key, b"") for key in keys])
    for key in keys:
        row_key = object_row_key((await world.store._buckets.read("bucket")).id, key.encode())
        await world.rows.commit([Put(row_key, b"no envelope")], token=Token(bytes(16)))
    assert await names(world, prefix, after, limit) == [name for name, _ in expected(keys, prefix, "", after)]


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_versions_are_paged(limit: int) -> None:
    world = await World.open()
    await world.store.set_versioning("bucket", Versioning.ENABLED)
    for count, key in enumerate(["a", "b/1", "b/2", "c"], start=1):
        for _ in range(count):
            await world.store.put_object("bucket", key, b"", PutOptions())
    whole = await world.store.list_versions("bucket")
    assert [info.key for info in whole.objects] == ["a", "b/1", "b/1", *["b/2"] * 3, *["c"] * 4]
    found: list[tuple[str, str]] = []
    after: tuple[str, str] | None = None
    while True:
        page = await world.store.list_versions("bucket", after=after, limit=limit)
        found += [(info.key, info.version) for info in page.objects]
        if page.resume is None:
            break
        after = found[-1]
    assert found == [(info.key, info.version) for info in whole.objects]
    folded = await world.store.list_versions("bucket", delimiter="/")
    assert folded.prefixes == ("b/",)
    await world.close()
