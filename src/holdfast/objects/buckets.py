"""Buckets: create, look up, list, delete, versioning, tags.

A bucket's name leads to an id drawn at random, and everything inside is filed under the id. So a bucket that was
deleted and made again is another one, and nothing of the old can show in it.
"""

from collections.abc import Mapping

import msgspec
from msgspec import Struct

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import AlreadyExists, InvalidRequest, NotFound, PreconditionFailed
from holdfast.core.ids import new_token
from holdfast.core.ranges import KeyRange, prefix_end, prefix_range
from holdfast.meta.interface import Delete, Expectation, HasToken, IsAbsent, IsEmpty, Meta, Put, Row
from holdfast.objects.errors import BucketNotEmpty, Contended, NoSuchBucket, UploadsInFlight
from holdfast.objects.model import Bucket, Versioning
from holdfast.objects.names import check_bucket_name
from holdfast.objects.rows import (
    BUCKET_ID_BYTES,
    BUCKETS,
    OBJECTS,
    BucketRow,
    bucket_row_key,
    uploads_prefix,
)

# One loses the race for a bucket's row only to another change of the same bucket: rare, and soon over.
ATTEMPTS_MAX_COUNT = 16


class OpenBucket(Struct, frozen=True):
    """A bucket's row as it was read, and what a commit expects that relies on it."""

    name: str
    row: BucketRow
    expectation: HasToken

    @property
    def id(self) -> bytes:
        return self.row.id

    @property
    def versioning(self) -> Versioning:
        return Versioning(self.row.versioning)

    def public(self) -> Bucket:
        return Bucket(self.name, self.row.created_ns, self.versioning, self.row.region, self.row.tags)


class Buckets:
    """The `B` rows, with a cache of what this process read last.

    The cache decides nothing: a write expects the row's token, and a read fetches the row again beside its own
    (`current`), so that a bucket that another process deleted is noticed at once.
    """

    def __init__(self, meta: Meta, clock: Clock, randomness: Randomness) -> None:
        self._meta = meta
        self._clock = clock
        self._randomness = randomness
        self._cache: dict[str, OpenBucket] = {}

    async def create(self, name: str, region: str, versioning: Versioning) -> Bucket:
        """Raises InvalidName, AlreadyExists."""
        check_bucket_name(name)
        row = BucketRow(
            BucketRow.SHAPE,
            self._randomness.bytes(BUCKET_ID_BYTES),
            self._clock.now_ns(),
            versioning,
            region,
        )
        key = bucket_row_key(name)
        token = new_token(self._randomness)
        # An id in use would mix two buckets; the range is empty for a fresh one.
        expecting: list[Expectation] = [IsAbsent(key), IsEmpty(prefix_range(OBJECTS + row.id))]
        try:
            await self._meta.commit([Put(key, row.encode())], expecting, token=token)
        except PreconditionFailed as error:
            if error.failed and 0 not in error.failed:
                return await self.create(name, region, versioning)
            raise AlreadyExists(f"the bucket {name} is there already") from None
        opened = self._cache[name] = OpenBucket(name, row, HasToken(key, token))
        return opened.public()

    async def open(self, name: str) -> OpenBucket:
        """The bucket as it was when this process last looked: for writes, which expect its token."""
        cached = self._cache.get(name)
        return cached if cached is not None else await self.read(name)

    async def read(self, name: str) -> OpenBucket:
        """The bucket as it is now. Raises NoSuchBucket."""
        key = bucket_row_key(name)
        try:
            row = await self._meta.get(key)
        except NotFound:
            self._cache.pop(name, None)
            raise NoSuchBucket(f"there is no bucket {name}") from None
        return self._remember(name, row)

    async def current(self, opened: OpenBucket, row: Row | None) -> OpenBucket | None:
        """Given the bucket's row as read in the same moment as other rows: None when `opened` still stands, else the
        bucket to look in instead. Raises NoSuchBucket when it is gone."""
        if row is None:
            self._cache.pop(opened.name, None)
            raise NoSuchBucket(f"there is no bucket {opened.name}")
        if row.token == opened.expectation.token:
            return None
        return self._remember(opened.name, row)

    def forget(self, name: str) -> None:
        """A commit found the bucket changed: look again."""
        self._cache.pop(name, None)

    async def list(self, after: str, prefix: str, limit: int) -> list[Bucket]:
        """In the order of names, from behind `after`."""
        base = BUCKETS + prefix.encode()
        start = max(base, bucket_row_key(after) + b"\0") if after else base
        page = await self._meta.scan(KeyRange(start, prefix_end(base)), limit=limit)
        return [
            self._remember(entry.key[1:].decode(), entry).public() for entry in page.entries if isinstance(entry, Row)
        ]

    async def delete(self, name: str) -> None:
        """Raises NoSuchBucket, BucketNotEmpty, and UploadsInFlight when nothing else keeps the bucket."""
        for _ in range(ATTEMPTS_MAX_COUNT):
            bucket = await self.read(name)
            expecting: list[Expectation] = [
                bucket.expectation,
                IsEmpty(prefix_range(OBJECTS + bucket.id)),
                IsEmpty(prefix_range(uploads_prefix(bucket.id))),
            ]
            try:
                await self._meta.commit([Delete(bucket.expectation.key)], expecting, token=new_token(self._randomness))
            except PreconditionFailed as error:
                if not error.failed or 0 in error.failed:
                    continue
                if 1 in error.failed:
                    raise BucketNotEmpty(f"the bucket {name} still holds objects") from None
                raise UploadsInFlight(f"the bucket {name} still holds uploads") from None
            self._cache.pop(name, None)
            return
        raise Contended(f"the bucket {name} keeps changing")

    async def set_versioning(self, name: str, versioning: Versioning) -> None:
        """Raises NoSuchBucket, and InvalidRequest for OFF: a bucket that ever kept versions can only suspend."""
        if versioning is Versioning.OFF:
            raise InvalidRequest("versioning can be enabled or suspended, not undone")
        await self._change(name, versioning=versioning)

    async def set_tags(self, name: str, tags: Mapping[str, str]) -> None:
        """Raises NoSuchBucket."""
        await self._change(name, tags=dict(tags))

    async def _change(self, name: str, **fields: object) -> None:
        for _ in range(ATTEMPTS_MAX_COUNT):
            bucket = await self.read(name)
            row = msgspec.structs.replace(bucket.row, **fields)
            token = new_token(self._randomness)
            try:
                await self._meta.commit([Put(bucket.expectation.key, row.encode())], [bucket.expectation], token=token)
            except PreconditionFailed:
                continue
            self._cache[name] = OpenBucket(name, row, HasToken(bucket.expectation.key, token))
            return
        raise Contended(f"the bucket {name} keeps changing")

    def _remember(self, name: str, row: Row) -> OpenBucket:
        cached = self._cache.get(name)
        if cached is None or cached.expectation.token != row.token:
            cached = OpenBucket(name, BucketRow.decode(row.value), HasToken(row.key, row.token))
            self._cache[name] = cached
        return cached
