"""The calls of `objects.Store` that this gateway makes, with the errors that it tells apart.

A protocol, so that tests can put one in that misbehaves. All raise `core.errors.Unavailable` and its kinds as well.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from holdfast.core.errors import HoldfastError
from holdfast.core.ids import Buffer
from holdfast.core.ranges import ByteRange
from holdfast.objects.model import (
    NO_CONDITIONS,
    Body,
    Bucket,
    CompletedPart,
    Conditions,
    Deleted,
    Listing,
    ObjectInfo,
    Part,
    PutOptions,
    Upload,
    UploadPage,
    Versioning,
)


class ObjectReader(Protocol):
    """One version, looked up: it can be read to the end whatever happens to the key meanwhile."""

    @property
    def info(self) -> ObjectInfo: ...

    def read(self, range: ByteRange | None = None) -> AsyncIterator[Buffer]:
        """The bytes, checked. A buffer may be used again once the next is asked for. Raises Corrupt."""
        ...


class Store(Protocol):
    """Buckets, objects, versions and uploads."""

    async def create_bucket(self, name: str, *, region: str = "") -> Bucket: ...

    async def bucket(self, name: str) -> Bucket: ...

    async def delete_bucket(self, name: str) -> None: ...

    async def list_buckets(self, *, after: str = "", prefix: str = "", limit: int = 1000) -> list[Bucket]: ...

    async def set_versioning(self, bucket: str, versioning: Versioning) -> None: ...

    async def put_object(self, bucket: str, key: str, body: Body, options: PutOptions) -> ObjectInfo: ...

    async def object_info(self, bucket: str, key: str, version: str | None = None) -> ObjectInfo: ...

    async def open_object(self, bucket: str, key: str, version: str | None = None) -> ObjectReader: ...

    async def delete_object(
        self, bucket: str, key: str, version: str | None = None, conditions: Conditions = NO_CONDITIONS
    ) -> Deleted: ...

    async def delete_objects(
        self, bucket: str, keys: Sequence[tuple[str, str | None]]
    ) -> Sequence[Deleted | HoldfastError]: ...

    async def list_objects(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: str = "",
        resume: str | None = None,
        limit: int = 1000,
    ) -> Listing: ...

    async def list_versions(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] | None = None,
        limit: int = 1000,
    ) -> Listing: ...

    async def create_upload(self, bucket: str, key: str, options: PutOptions) -> Upload: ...

    async def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, body: Body, options: PutOptions
    ) -> Part: ...

    async def list_parts(
        self, bucket: str, key: str, upload_id: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[list[Part], bool]: ...

    async def list_uploads(
        self,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        after: tuple[str, str] = ("", ""),
        limit: int = 1000,
    ) -> UploadPage: ...

    async def complete_upload(
        self, bucket: str, key: str, upload_id: str, parts: Sequence[CompletedPart], options: PutOptions
    ) -> ObjectInfo: ...

    async def abort_upload(self, bucket: str, key: str, upload_id: str) -> None: ...
