"""Blobs as objects: each is an object of one bucket, its id the key, its `X-*` headers the user metadata.

The SHA-256 of a blob is its object's checksum. It says whether an upload under a taken id brings the same bytes.
"""

import base64
import hashlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from holdfast.core.errors import AlreadyExists, Corrupt, HoldfastError
from holdfast.core.ids import Buffer
from holdfast.gateways.sos.blobs import Blob, BlobInfo, SmallBlob, deleted_meanwhile, expect_same, other_bytes
from holdfast.objects.errors import ConditionFailed, NoSuchBucket, NoSuchObject
from holdfast.objects.model import Conditions, Digests, NewObject, ObjectInfo, PutOptions
from holdfast.objects.store import Store

BUCKET = "sos"
"""S3 shows blobs in this bucket when it serves the same store."""

_CHECKSUM = "sha256"
_IF_FREE = Conditions(if_none_match=True)
_LOGGER = logging.getLogger(__name__)


class ObjectBlobs:
    """`BlobStore` over the product's own API."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @classmethod
    async def open_bucket(cls, store: Store) -> "ObjectBlobs":
        """The blobs of a store; their bucket is made if it is not there."""
        try:
            await store.bucket(BUCKET)
        except NoSuchBucket:
            try:
                await store.create_bucket(BUCKET)
            except AlreadyExists:
                _LOGGER.debug("another process made the bucket")
        return cls(store)

    async def put(self, id: str, body: AsyncIterator[Buffer], headers: Mapping[str, str]) -> int:
        found = await self._find(id)
        if found is not None:
            return await expect_same(id, body, found.size, _sha256(found))
        came: dict[str, Digests] = {}

        def check(digests: Digests) -> Mapping[str, str]:
            came["body"] = digests
            return _keep(digests)

        try:
            made = await self._store.put_object(BUCKET, id, body, _options(headers, check))
        except ConditionFailed:
            # Somebody put it while this body came in. It was hashed on its way, so it need not come again.
            found, digests = await self._find(id), came["body"]
            if found is None:
                raise deleted_meanwhile(id) from None
            if (digests.size, digests.values[_CHECKSUM]) != (found.size, _sha256(found)):
                raise other_bytes(id) from None
            return found.size
        return made.size

    async def put_many(self, blobs: Sequence[SmallBlob]) -> list[int | HoldfastError]:
        made = await self._store.put_objects(
            BUCKET, [NewObject(blob.id, blob.data, _options(blob.headers, _keep)) for blob in blobs]
        )
        return [
            await self._settle(blob, found) if isinstance(found, HoldfastError) else found.size
            for blob, found in zip(blobs, made, strict=True)
        ]

    async def _settle(self, blob: SmallBlob, error: HoldfastError) -> int | HoldfastError:
        """An id that is taken is no error if it holds these bytes."""
        if not isinstance(error, ConditionFailed):
            return error
        try:
            found = await self._find(blob.id)
            if found is None:
                return deleted_meanwhile(blob.id)
            same = (len(blob.data), hashlib.sha256(blob.data).digest()) == (found.size, _sha256(found))
        except HoldfastError as failure:
            return failure
        return found.size if same else other_bytes(blob.id)

    async def info(self, id: str) -> BlobInfo:
        return _info(await self._store.object_info(BUCKET, id))

    async def open(self, id: str) -> Blob:
        reader = await self._store.open_object(BUCKET, id)
        return Blob(_info(reader.info), reader.read())

    async def ids(self) -> AsyncIterator[Sequence[str]]:
        resume: str | None = None
        while True:
            page = await self._store.list_names(BUCKET, resume=resume)
            yield page.keys
            if (resume := page.resume) is None:
                return

    async def delete(self, id: str) -> None:
        await self._store.delete_object(BUCKET, id)

    async def close(self) -> None:
        """The store belongs to whoever opened it."""

    async def _find(self, id: str) -> ObjectInfo | None:
        try:
            return await self._store.object_info(BUCKET, id)
        except NoSuchObject:
            return None


def _options(headers: Mapping[str, str], check: Callable[[Digests], Mapping[str, str]]) -> PutOptions:
    return PutOptions(user_metadata=headers, conditions=_IF_FREE, md5=False, digests=(_CHECKSUM,), check=check)


def _keep(digests: Digests) -> Mapping[str, str]:
    """The checksum to keep."""
    return {_CHECKSUM: base64.b64encode(digests.values[_CHECKSUM]).decode("ascii")}


def _info(info: ObjectInfo) -> BlobInfo:
    return BlobInfo(info.key, info.size, info.user_metadata)


def _sha256(info: ObjectInfo) -> bytes:
    """Of an object in the bucket; one that came by another gateway may have none."""
    text = info.checksums.get(_CHECKSUM, "")
    if not text:
        raise Corrupt(f"{info.key} was put by another way than sos, and has no SHA-256")
    return base64.b64decode(text)
