"""From object to object on one endpoint: the server copies, no byte passes through here.

Content type, user metadata and tags go along, as S3 does it. What is larger than one CopyObject takes is put together
of ranges, with the metadata read first; its tags are not taken along then, which S3 has no call for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from holdfast.cli.client.address import Remote
from holdfast.cli.client.connection import Connection
from holdfast.cli.client.crew import Crew
from holdfast.cli.client.digests import etag_of
from holdfast.cli.client.listing import named
from holdfast.core.errors import HoldfastError, InvalidRequest
from holdfast.core.limits import GIB, MIB, PART_MAX_BYTES, PARTS_MAX_COUNT

# A range for one UploadPartCopy: large, since no data is moved, and small enough for servers that do move it.
RANGE_BYTES = 1 * GIB

_TAKEN_ALONG = ("CacheControl", "ContentDisposition", "ContentEncoding", "ContentLanguage", "ContentType", "Metadata")


@dataclass(frozen=True, slots=True)
class Copied:
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Copier:
    """How objects are copied. `advance` is told of bytes as they are done; called from several threads."""

    connection: Connection
    crew: Crew
    advance: Callable[[int], None]

    def copy(self, source: Remote, target: Remote, *, size: int, etag: str) -> Copied:
        """Copy the object that has this ETag. Raises PreconditionFailed when it is another by now."""
        if source == target:
            raise InvalidRequest(f"{source} would be copied onto itself")
        if size > PART_MAX_BYTES:
            return self._in_ranges(source, target, etag)
        answer = self.connection.call(
            "copy_object", target.bucket, target.key,
            CopySource={"Bucket": source.bucket, "Key": source.key}, CopySourceIfMatch=f'"{etag}"',
        )  # fmt: skip
        self.advance(size)
        return Copied(size, etag_of(answer["CopyObjectResult"]))

    def _in_ranges(self, source: Remote, target: Remote, etag: str) -> Copied:
        head = named(self.connection, source)
        size = int(head["ContentLength"])
        kept: dict[str, Any] = {name: head[name] for name in _TAKEN_ALONG if head.get(name)}
        created = self.connection.call("create_multipart_upload", target.bucket, target.key, **kept)
        upload = str(created["UploadId"])
        length = max(RANGE_BYTES, -(-size // (PARTS_MAX_COUNT * MIB)) * MIB)

        def copy(number: int) -> str:
            start = (number - 1) * length
            end = min(start + length, size)
            answer = self.connection.call(
                "upload_part_copy", target.bucket, target.key, UploadId=upload, PartNumber=number,
                CopySource={"Bucket": source.bucket, "Key": source.key},
                CopySourceIfMatch=f'"{etag}"', CopySourceRange=f"bytes={start}-{end - 1}",
            )  # fmt: skip
            self.advance(end - start)
            return etag_of(answer["CopyPartResult"])

        try:
            etags = dict(self.crew.parts(range(1, -(-size // length) + 1), copy))
            parts = [{"PartNumber": number, "ETag": f'"{etags[number]}"'} for number in sorted(etags)]
            answer = self.connection.call(
                "complete_multipart_upload", target.bucket, target.key,
                UploadId=upload, MultipartUpload={"Parts": parts},
            )  # fmt: skip
        except HoldfastError:
            self._abort(target, upload)
            raise
        return Copied(size, etag_of(answer))

    def _abort(self, target: Remote, upload: str) -> None:
        try:
            self.connection.call("abort_multipart_upload", target.bucket, target.key, UploadId=upload)
        except HoldfastError:
            pass  # the copy's own error is what is told
