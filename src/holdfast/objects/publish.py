"""Putting a version on top of a key, and taking versions away: the one place that changes `O` and `V` rows.

Each change reads what it needs, decides (`versions.py`), and commits under the tokens of what it read. When another
writer was faster it reads again. So conditions are exact under any race, and a reader sees a key before or after a
change, never between.
"""

import asyncio
from collections.abc import Mapping, Sequence
from weakref import WeakValueDictionary

import msgspec
from msgspec import Struct

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import HoldfastError, PreconditionFailed
from holdfast.core.ids import ContentId, new_token
from holdfast.core.limits import MIB
from holdfast.core.ranges import prefix_range
from holdfast.meta.interface import Change, Expectation, HasToken, IsAbsent, Meta, Put, Row
from holdfast.objects.buckets import Buckets, OpenBucket
from holdfast.objects.errors import Contended, MarkedDeleted, NoSuchBucket, NoSuchObject, NoSuchVersion
from holdfast.objects.model import NULL_VERSION, Conditions, Deleted, Versioning, VersionName
from holdfast.objects.references import Overtaken, Prepared, References
from holdfast.objects.rows import VersionRow, object_row_key, version_row_key, versions_prefix
from holdfast.objects.versions import (
    UNIQUE_BYTES,
    Draft,
    Step,
    add,
    check_conditions,
    info,
    is_named,
    parse_version_id,
    remove_current,
    remove_older,
    version_id,
)

# Objects of one commit: alone, each would cost a hundred times its work in waiting for a sync. The event loop is given
# back after a few milliseconds of them, and one record of the log is not for them alone.
PUT_BATCH_MAX_COUNT = 256
PUT_BATCH_MAX_BYTES = 4 * MIB

# Writers of one key take turns within a process, so the racers are processes, and every round one of them wins.
ATTEMPTS_MAX_COUNT = 200


class _Seen(Struct, frozen=True):
    """A key as it was read: its newest version and what a commit expects that relies on it."""

    row_key: bytes
    version: VersionRow | None
    expectation: Expectation


class Wanted(Struct, frozen=True):
    """A version that is to become the newest of its key."""

    key: bytes
    draft: Draft
    conditions: Conditions


def _bytes(steps: Sequence[Step]) -> int:
    """Of the values that they write."""
    return sum(len(change.value) for step in steps for change in step.changes if isinstance(change, Put))


def _seen(row_key: bytes, row: Row | None) -> _Seen:
    if row is None:
        return _Seen(row_key, None, IsAbsent(row_key))
    return _Seen(row_key, VersionRow.decode(row.value), HasToken(row_key, row.token))


class Publisher:
    """Changes what a key's versions are."""

    def __init__(
        self, meta: Meta, buckets: Buckets, references: References, clock: Clock, randomness: Randomness
    ) -> None:
        self._meta = meta
        self._buckets = buckets
        self._references = references
        self._clock = clock
        self._randomness = randomness
        self._turns: WeakValueDictionary[tuple[str, bytes], asyncio.Lock] = WeakValueDictionary()

    def unique(self) -> bytes:
        return self._randomness.bytes(UNIQUE_BYTES)

    async def put(
        self, bucket_name: str, key: bytes, draft: Draft, conditions: Conditions, extra: Prepared
    ) -> VersionRow:
        """Make `draft` the newest version, together with the changes of `extra`.

        Raises NoSuchBucket, ConditionFailed, NoSuchObject (If-Match), Contended, ContentGone (of `extra.taken`), and
        PreconditionFailed when an expectation of `extra` does not hold, with its position in `extra.expecting`.
        """
        async with self._turn(bucket_name, key):
            for _ in range(ATTEMPTS_MAX_COUNT):
                bucket = await self._buckets.open(bucket_name)
                seen = await self._read(bucket, key)
                try:
                    check_conditions(conditions, seen.version)
                except HoldfastError:
                    # The refusal is an answer of its own, so it must rest on the bucket as it is.
                    if await self._buckets.read(bucket_name) != bucket:
                        continue
                    raise
                try:
                    step, row = await self._add(bucket, key, seen, draft)
                except Overtaken:
                    continue
                if await self._commit(bucket, [seen.expectation], [step], extra):
                    return row
        raise Contended("too many writers of this key at once")

    async def put_many(self, bucket_name: str, wanted: Sequence[Wanted]) -> list[VersionRow | HoldfastError]:
        """As `put` for each of at most PUT_BATCH_MAX_COUNT, in one commit if nobody interferes and no key is there
        twice; otherwise halved until that is so.

        Raises NoSuchBucket; every other error is in the place of those that it befell.
        """
        try:
            if len(wanted) == 1:
                return [await self.put(bucket_name, wanted[0].key, wanted[0].draft, wanted[0].conditions, Prepared())]
            made = await self._put_at_once(bucket_name, wanted)
        except NoSuchBucket:
            raise
        except HoldfastError as error:
            return [error for _ in wanted]
        if made is not None:
            return made
        half = len(wanted) // 2
        return [
            *await self.put_many(bucket_name, wanted[:half]),
            *await self.put_many(bucket_name, wanted[half:]),
        ]

    async def _put_at_once(self, bucket_name: str, wanted: Sequence[Wanted]) -> list[VersionRow | HoldfastError] | None:
        """One attempt in one commit; None when it cannot be."""
        if len({one.key for one in wanted}) < len(wanted):
            return None
        bucket = await self._buckets.open(bucket_name)
        results: list[VersionRow | HoldfastError] = []
        steps: list[Step] = []
        expecting: list[Expectation] = []
        row_keys = [object_row_key(bucket.id, one.key) for one in wanted]
        for one, row_key, found in zip(wanted, row_keys, await self._meta.get_many(row_keys), strict=True):
            seen = _seen(row_key, found)
            try:
                check_conditions(one.conditions, seen.version)
            except HoldfastError as error:
                results.append(error)
                continue
            try:
                step, row = await self._add(bucket, one.key, seen, one.draft)
            except Overtaken:
                return None
            steps.append(step)
            expecting.append(seen.expectation)
            results.append(row)
        if len(steps) < len(wanted) and await self._buckets.read(bucket_name) != bucket:
            return None  # a refusal must rest on the bucket as it is
        if _bytes(steps) > PUT_BATCH_MAX_BYTES:
            return None
        return results if not steps or await self._commit(bucket, expecting, steps, Prepared()) else None

    async def delete(
        self, bucket_name: str, key: bytes, version: VersionName | None, conditions: Conditions
    ) -> Deleted:
        """The conditions are on the version that is named, if one is.

        Raises NoSuchBucket, ConditionFailed, NoSuchObject (If-Match and its like), Contended.
        """
        async with self._turn(bucket_name, key):
            for _ in range(ATTEMPTS_MAX_COUNT):
                bucket = await self._buckets.read(bucket_name)
                seen = await self._read(bucket, key)
                try:
                    step, expecting, deleted = await self._remove(bucket, key, seen, version, conditions)
                except Overtaken:
                    continue
                if step is None or await self._commit(bucket, [seen.expectation, *expecting], [step], Prepared()):
                    return deleted
        raise Contended("too many writers of this key at once")

    async def set_tags(self, bucket_name: str, key: bytes, version: str | None, tags: Mapping[str, str]) -> VersionRow:
        """Give a version, the newest unless one is named, these tags instead of its own.

        Raises NoSuchBucket, NoSuchObject, NoSuchVersion, InvalidRequest, Contended.
        """
        for _ in range(ATTEMPTS_MAX_COUNT):
            bucket = await self._buckets.read(bucket_name)
            seen = await self._read(bucket, key)
            row_key, row, expectation = seen.row_key, seen.version, seen.expectation
            if row is not None and version is not None and version != version_id(row):
                older = await self._find_older(bucket, key, row, version)
                row = None
                if older is not None:
                    row_key, row = older.key, VersionRow.decode(older.value)
                    expectation = HasToken(older.key, older.token)
            if row is None:
                raise (
                    NoSuchObject("the key has no version")
                    if version is None
                    else NoSuchVersion("the key has no version of that id")
                )
            if row.delete_marker:
                raise MarkedDeleted(info(key.decode(), row, latest=row_key == seen.row_key))
            changed = msgspec.structs.replace(row, tags=dict(tags))
            if await self._commit(bucket, [expectation], [Step([Put(row_key, changed.encode())])], Prepared()):
                return changed
        raise Contended("too many writers of this key at once")

    async def delete_many(
        self, bucket_name: str, keys: Sequence[tuple[bytes, str | None, Conditions]]
    ) -> list[Deleted | HoldfastError]:
        """Delete several, each on its conditions, in one commit when nobody interferes.

        Raises NoSuchBucket; what befalls one key alone is in its place in the answer.
        """
        results = await self._delete_at_once(bucket_name, keys)
        if results is not None:
            return results
        results = []
        for key, version, conditions in keys:
            try:
                results.append(await self.delete(bucket_name, key, version, conditions))
            except HoldfastError as error:
                results.append(error)
        return results

    async def _delete_at_once(
        self, bucket_name: str, keys: Sequence[tuple[bytes, str | None, Conditions]]
    ) -> list[Deleted | HoldfastError] | None:
        """One attempt in one commit; None when it cannot be."""
        bucket = await self._buckets.read(bucket_name)
        results: list[Deleted | HoldfastError] = []
        steps: list[Step] = []
        expecting: list[Expectation] = []
        row_keys = [object_row_key(bucket.id, key) for key, _, _ in keys]
        if len(set(row_keys)) < len(row_keys):
            return None
        rows = await self._meta.get_many(row_keys)
        for (key, version, conditions), row_key, row in zip(keys, row_keys, rows, strict=True):
            seen = _seen(row_key, row)
            try:
                step, further, deleted = await self._remove(bucket, key, seen, version, conditions)
            except Overtaken:
                return None
            except HoldfastError as error:
                results.append(error)
                continue
            results.append(deleted)
            if step is not None:
                steps.append(step)
                expecting += [seen.expectation, *further]
        return results if not steps or await self._commit(bucket, expecting, steps, Prepared()) else None

    def _turn(self, bucket_name: str, key: bytes) -> asyncio.Lock:
        """Held while a key is changed. It decides nothing: of writers of one key every commit lets one through, and
        without a turn each new one would overtake those of this process that have waited."""
        return self._turns.setdefault((bucket_name, key), asyncio.Lock())

    async def _read(self, bucket: OpenBucket, key: bytes) -> _Seen:
        row_key = object_row_key(bucket.id, key)
        (row,) = await self._meta.get_many([row_key])
        return _seen(row_key, row)

    async def _add(self, bucket: OpenBucket, key: bytes, seen: _Seen, draft: Draft) -> tuple[Step, VersionRow]:
        """Raises Overtaken when the key is no longer as it was seen."""
        current = seen.version
        older_null = None
        if bucket.versioning is Versioning.SUSPENDED and current is not None and current.null_sequence:
            (older_null,) = await self._meta.get_many([version_row_key(bucket.id, key, current.null_sequence)])
            if older_null is None:
                raise Overtaken("another writer removed it, so the token of `current` has changed as well")
        return add(bucket.id, key, bucket.versioning, current, older_null, draft)

    async def _remove(
        self, bucket: OpenBucket, key: bytes, seen: _Seen, version: VersionName | None, conditions: Conditions
    ) -> tuple[Step | None, list[Expectation], Deleted]:
        """The step (None when there is nothing to do), what it relies on besides `seen`, and what to answer. Raises as
        `check_conditions` and `_add`."""
        current = seen.version
        if version is None:
            check_conditions(conditions, current)
            return await self._remove_newest(bucket, key, seen)
        gone = Deleted(version if isinstance(version, str) else None, delete_marker=False, existed=False)
        if current is None:
            check_conditions(conditions, None)
            return None, [], gone
        if is_named(current, version):
            check_conditions(conditions, current)
            page = await self._meta.scan(prefix_range(versions_prefix(bucket.id, key)), limit=1)
            older = page.entries[0] if page.entries else None
            assert not isinstance(older, tuple)
            step = remove_current(bucket.id, key, current, older if isinstance(older, Row) else None)
            further: list[Expectation] = [HasToken(older.key, older.token)] if isinstance(older, Row) else []
            return step, further, Deleted(version_id(current), delete_marker=current.delete_marker, existed=True)
        row = await self._find_older(bucket, key, current, version)
        found = VersionRow.decode(row.value) if row is not None else None
        check_conditions(conditions, found)
        if row is None or found is None:
            return None, [], gone
        step = remove_older(bucket.id, key, current, row)
        deleted = Deleted(version_id(found), delete_marker=found.delete_marker, existed=True)
        return step, [HasToken(row.key, row.token)], deleted

    async def _remove_newest(
        self, bucket: OpenBucket, key: bytes, seen: _Seen
    ) -> tuple[Step | None, list[Expectation], Deleted]:
        if bucket.versioning is Versioning.OFF:
            if seen.version is None:
                return None, [], Deleted(None, delete_marker=False, existed=False)
            step = remove_current(bucket.id, key, seen.version, None)
            return step, [], Deleted(None, delete_marker=False, existed=True)
        marker = Draft(
            size=0,
            etag="",
            modified_ns=self._clock.now_ns(),
            headers={},
            user_metadata={},
            checksums={},
            content=None,
            inline=b"",
            unique=self.unique(),
            delete_marker=True,
        )
        step, row = await self._add(bucket, key, seen, marker)
        return step, [], Deleted(version_id(row), delete_marker=True, existed=seen.version is not None)

    async def _find_older(
        self, bucket: OpenBucket, key: bytes, current: VersionRow, version: VersionName
    ) -> Row | None:
        unique = b""
        if isinstance(version, int):
            if not 0 < version < current.sequence:
                return None
            sequence = version
        elif version == NULL_VERSION:
            sequence = current.null_sequence
            if not sequence:
                return None
        else:
            sequence, unique = parse_version_id(version)
        (row,) = await self._meta.get_many([version_row_key(bucket.id, key, sequence)])
        if row is None or isinstance(version, int):
            return row
        found = VersionRow.decode(row.value)
        wanted = found.null if version == NULL_VERSION else found.unique == unique and not found.null
        return row if wanted else None

    async def _commit(
        self, bucket: OpenBucket, expecting: Sequence[Expectation], steps: Sequence[Step], extra: Prepared
    ) -> bool:
        """Whether the commit went through; False when somebody else was faster and all must be read again."""
        released: list[ContentId] = [content for step in steps for content in step.released]
        try:
            moved = released or extra.taken
            dropped = await self._references.move(extra.taken, released) if moved else Prepared()
        except Overtaken:
            return False
        changes: list[Change] = [change for step in steps for change in step.changes]
        own: list[Expectation] = [bucket.expectation, *expecting, *dropped.expecting]
        try:
            await self._meta.commit(
                [*changes, *dropped.changes, *extra.changes],
                [*own, *extra.expecting],
                token=new_token(self._randomness),
            )
        except PreconditionFailed as error:
            if any(position >= len(own) for position in error.failed):
                raise PreconditionFailed(
                    "what this change relied on is no longer so",
                    tuple(position - len(own) for position in error.failed if position >= len(own)),
                ) from None
            if 0 in error.failed:
                self._buckets.forget(bucket.name)
            return False
        return True

    async def find(self, bucket: OpenBucket, key: bytes, current: VersionRow, version: VersionName) -> VersionRow:
        """The version of that name. Raises NoSuchVersion, InvalidRequest."""
        if is_named(current, version):
            return current
        row = await self._find_older(bucket, key, current, version)
        if row is None:
            raise NoSuchVersion("the key has no such version")
        return VersionRow.decode(row.value)
