"""An endpoint in memory behind `Connection`'s calls, which misbehaves on demand. ETags and checksums are hashlib's."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from holdfast.cli.client import digests
from holdfast.cli.client.failures import NoSuchUpload
from holdfast.core.crc import crc64nvme
from holdfast.core.errors import NotFound, PreconditionFailed

WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)


class Body:
    """A body that ends early when it is told to, as a connection does."""

    def __init__(self, data: bytes, breaks_after: int | None) -> None:
        self._data, self._at, self._breaks_after = data, 0, breaks_after

    def read(self, count: int) -> bytes:
        if self._breaks_after is not None and self._at >= self._breaks_after:
            raise OSError("connection reset")
        piece = self._data[self._at : self._at + min(count, 100_000)]
        self._at += len(piece)
        return piece

    def close(self) -> None:
        pass


@dataclass
class FakeS3:
    """Quacks like `Connection`. `objects` and `uploads` are what it holds."""

    objects: dict[str, bytes] = field(default_factory=dict)
    uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    aborted: list[str] = field(default_factory=list)
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    sends_checksums: bool = True
    """Also: whether it keeps any."""
    etags: dict[str, str] = field(default_factory=dict)
    """In place of the MD5."""
    breaks_after: Callable[[int], int | None] = lambda _: None
    """After how many bytes the body of the nth GET ends."""
    ignores_ranges: bool = False
    before: dict[str, Callable[[], None]] = field(default_factory=dict)
    """Done before a call of that name is answered."""
    endpoint: str = "http://fake"
    skew: timedelta = timedelta(0)

    def wait(self, seconds: float) -> None:
        pass

    def call(self, operation: str, bucket: str = "", key: str = "", **parameters: Any) -> dict[str, Any]:
        self.calls.append((operation, parameters))
        if operation in self.before:
            self.before[operation]()
        answer: dict[str, Any] = getattr(self, "_" + operation)(key, **parameters)
        return answer

    call_small = call

    def pages(self, operation: str, bucket: str = "", **parameters: Any) -> Iterator[dict[str, Any]]:
        assert operation == "list_parts"
        parts = self.uploads.get(parameters["UploadId"])
        if parts is None:
            raise NoSuchUpload("gone")
        yield {
            "Parts": [
                {"PartNumber": number, "Size": len(data), "ETag": etag(data)} for number, data in sorted(parts.items())
            ]
        }

    def count(self, operation: str) -> int:
        return sum(name == operation for name, _ in self.calls)

    def _proof(self, data: bytes) -> dict[str, Any]:
        if not self.sends_checksums:
            return {}
        return {"ChecksumCRC64NVME": digests.as_text(crc64nvme(data)), "ChecksumType": "FULL_OBJECT"}

    def _put_object(self, key: str, Body: bytes, **_: Any) -> dict[str, Any]:
        self.objects[key] = Body
        return {"ETag": etag(Body), **self._proof(Body)}

    def _head_object(self, key: str, PartNumber: int = 0, **_: Any) -> dict[str, Any]:
        if key not in self.objects:
            raise NotFound(key)
        data = self.objects[key]
        length = 100 if PartNumber else len(data)
        return {
            "ContentLength": length, "ETag": self.etags.get(key) or etag(data), "LastModified": WRITTEN,
            **self._proof(data),
        }  # fmt: skip

    def _get_object(self, key: str, Range: str = "", IfMatch: str = "", **_: Any) -> dict[str, Any]:
        answer = self._head_object(key)
        if IfMatch and answer["ETag"] != IfMatch:
            raise PreconditionFailed("changed")
        data = self.objects[key]
        if Range and not self.ignores_ranges:
            start, end = map(int, Range.removeprefix("bytes=").split("-"))
            answer["ContentRange"] = f"bytes {start}-{end}/{len(data)}"
            data = data[start : end + 1]
        answer["ContentLength"] = len(data)
        answer["Body"] = Body(data, self.breaks_after(self.count("get_object")))
        return answer

    def _create_multipart_upload(self, key: str, **_: Any) -> dict[str, Any]:
        upload = f"upload-{len(self.calls)}"
        self.uploads[upload] = {}
        return {"UploadId": upload}

    def _upload_part(self, key: str, UploadId: str, PartNumber: int, Body: bytes, **_: Any) -> dict[str, Any]:
        self.uploads[UploadId][PartNumber] = Body
        return {"ETag": etag(Body), **self._proof(Body)}

    def _complete_multipart_upload(self, key: str, UploadId: str, **_: Any) -> dict[str, Any]:
        if UploadId not in self.uploads:
            raise NoSuchUpload("gone")
        parts = self.uploads.pop(UploadId)
        self.objects[key] = b"".join(parts[number] for number in sorted(parts))
        return {"ETag": '"0-1"', **self._proof(self.objects[key])}

    def _abort_multipart_upload(self, key: str, UploadId: str) -> dict[str, Any]:
        self.uploads.pop(UploadId, None)
        self.aborted.append(UploadId)
        return {}


def etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'
