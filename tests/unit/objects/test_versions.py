"""What a put, a marker or a deletion does to a key's versions: against a model that is a plain list."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from holdfast.core.errors import InvalidRequest, NotFound
from holdfast.objects import publish
from holdfast.objects.errors import ConditionFailed, MarkedDeleted, NoSuchObject, NoSuchVersion
from holdfast.objects.model import NO_CONDITIONS, Conditions, PutOptions, Versioning, VersionName
from holdfast.objects.store import Store
from holdfast.objects.versions import parse_version_id
from tests.unit.objects.world import World, collect, run


@dataclass
class Version:
    id: str
    body: bytes | None
    """None for a delete marker."""
    number: int


@dataclass
class Model:
    versioning: Versioning = Versioning.OFF
    keys: dict[str, list[Version]] = field(default_factory=dict)
    """Newest first."""
    given: dict[str, int] = field(default_factory=dict)
    """The highest number that a key gave, as long as anything of it is left."""

    def put(self, key: str, version: Version) -> None:
        versions = self.keys.setdefault(key, [])
        if version.id == "null":
            versions[:] = [other for other in versions if other.id != "null"]
        versions.insert(0, version)

    def drop(self, key: str, id: str) -> bool:
        versions = self.keys.get(key, [])
        kept = [version for version in versions if version.id != id]
        existed = len(kept) < len(versions)
        if kept:
            self.keys[key] = kept
        else:
            self.keys.pop(key, None)
            self.given.pop(key, None)
        return existed

    def give(self, key: str) -> int:
        self.given[key] = self.given.get(key, 0) + 1
        return self.given[key]


KEYS = st.sampled_from(["a", "a/b", "a/c", "b", "\x00", "b\x00c", "ü"])
BODIES = st.sampled_from([b"", b"x", b"second", b"y" * 9000])


class Versions(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.world = run(World.open())
        self.store: Store = self.world.store
        self.model = Model()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            run(self.world.close())

    @rule(versioning=st.sampled_from([Versioning.ENABLED, Versioning.SUSPENDED]))
    def set_versioning(self, versioning: Versioning) -> None:
        run(self.store.set_versioning("bucket", versioning))
        self.model.versioning = versioning

    @rule(key=KEYS, body=BODIES)
    def put(self, key: str, body: bytes) -> None:
        info = run(self.store.put_object("bucket", key, body, PutOptions()))
        assert (info.version == "null") == (self.model.versioning is not Versioning.ENABLED)
        self.model.put(key, Version(info.version, body, self.model.give(key)))
        assert info.number == self.model.given[key]

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        deleted = run(self.store.delete_object("bucket", key))
        if self.model.versioning is Versioning.OFF:
            assert deleted.existed == self.model.drop(key, "null")
            assert not deleted.delete_marker
        else:
            assert deleted.delete_marker
            assert deleted.version is not None
            self.model.put(key, Version(deleted.version, None, self.model.give(key)))

    @precondition(lambda self: self.model.keys)
    @rule(data=st.data())
    def delete_version(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.keys)))
        version = data.draw(st.sampled_from(self.model.keys[key]))
        names: list[VersionName] = [version.id, version.number]
        name = data.draw(st.sampled_from(names))
        deleted = run(self.store.delete_object("bucket", key, name))
        assert deleted.version == version.id
        assert deleted.existed
        assert deleted.delete_marker == (version.body is None)
        assert self.model.drop(key, version.id)

    @rule(keys=st.lists(KEYS, max_size=4))
    def delete_many(self, keys: list[str]) -> None:
        answers = run(self.store.delete_objects("bucket", [(key, None, NO_CONDITIONS) for key in keys]))
        assert len(answers) == len(keys)
        for key, answer in zip(keys, answers, strict=True):
            assert not isinstance(answer, Exception)
            if self.model.versioning is Versioning.OFF:
                self.model.drop(key, "null")
            else:
                assert answer.version is not None
                self.model.put(key, Version(answer.version, None, self.model.give(key)))

    @invariant()
    def reads_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        for key, versions in self.model.keys.items():
            for position, version in enumerate(versions):
                if version.body is None:
                    continue
                reader = run(self.store.open_object("bucket", key, version.id))
                assert run(collect(reader.read())) == version.body
                assert reader.info.number == version.number
                assert run(self.store.object_info("bucket", key, version.number)) == reader.info
                assert reader.info.latest == (position == 0)
            newest = versions[0]
            if newest.body is None:
                with pytest.raises(MarkedDeleted):
                    run(self.store.open_object("bucket", key))
            else:
                assert run(self.store.object_info("bucket", key)).version == newest.id

    @invariant()
    def listings_agree(self) -> None:
        if not hasattr(self, "model"):
            return
        listed = run(self.store.list_objects("bucket"))
        shown = sorted((k for k, v in self.model.keys.items() if v[0].body is not None), key=str.encode)
        assert [info.key for info in listed.objects] == shown
        everything = run(self.store.list_versions("bucket"))
        expected = [
            (key, version.id, version.number, version.body is None, position == 0)
            for key in sorted(self.model.keys, key=str.encode)
            for position, version in enumerate(self.model.keys[key])
        ]
        assert [(v.key, v.version, v.number, v.delete_marker, v.latest) for v in everything.objects] == expected

    @invariant()
    def nothing_leaks(self) -> None:
        if not hasattr(self, "model"):
            return
        bodies = [v.body for versions in self.model.keys.values() for v in versions if v.body is not None]
        assert run(self.world.live_contents()) == sum(len(body) > 8192 for body in bodies)


TestVersions = Versions.TestCase
TestVersions.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


@pytest.fixture
async def store() -> Store:
    world = await World.open()
    return world.store


async def test_conditions_are_decided_in_the_commit(store: Store) -> None:
    absent = PutOptions(conditions=Conditions(if_none_match=True))
    first = await store.put_object("bucket", "key", b"one", absent)
    with pytest.raises(ConditionFailed):
        await store.put_object("bucket", "key", b"two", absent)
    matching = PutOptions(conditions=Conditions(if_match=first.etag))
    await store.put_object("bucket", "key", b"three", matching)
    with pytest.raises(ConditionFailed):
        await store.put_object("bucket", "key", b"four", matching)
    with pytest.raises(NoSuchObject):
        await store.put_object("bucket", "other", b"five", matching)


async def test_a_missing_version_is_told_from_a_missing_key(store: Store) -> None:
    await store.put_object("bucket", "key", b"one", PutOptions())
    with pytest.raises(NoSuchVersion):
        await store.open_object("bucket", "key", (b"\0" * 7 + b"\1" + b"x" * 8).hex())
    for number in (-1, 0, 2, 2**64):
        with pytest.raises(NoSuchVersion):
            await store.open_object("bucket", "key", number)
        assert not (await store.delete_object("bucket", "key", number)).existed
    with pytest.raises(NotFound):
        await store.open_object("bucket", "missing")


async def test_writers_of_one_key_take_turns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody overtakes, so nobody has to try twice."""
    monkeypatch.setattr(publish, "ATTEMPTS_MAX_COUNT", 1)
    puts = [store.put_object("bucket", "key", b"%d" % number, PutOptions()) for number in range(40)]
    numbers = [made.number for made in await asyncio.gather(*puts)]
    assert numbers == list(range(1, 41))
    deletions = [store.delete_object("bucket", "key") for _ in range(5)]
    assert sum(deleted.existed for deleted in await asyncio.gather(*deletions)) == 1


async def test_a_bucket_may_keep_versions_from_the_start(store: Store) -> None:
    made = await store.create_bucket("kept", versioning=Versioning.ENABLED)
    assert made.versioning is Versioning.ENABLED
    numbers = [(await store.put_object("kept", "key", body, PutOptions())).number for body in (b"one", b"two")]
    assert numbers == [1, 2]
    assert (await store.object_info("kept", "key", 1)).size == 3


@pytest.mark.parametrize("text", ["", "zz", "00" * 15, "00" * 17, "AB" * 16, "null"])
def test_what_is_no_version_id(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_version_id(text)
