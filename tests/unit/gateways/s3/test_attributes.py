"""GetObjectAttributes and reads of parts, with the checksums that were kept of the parts."""

import base64
import zlib
from collections.abc import AsyncIterator

import pytest

from holdfast.core.limits import PART_MIN_BYTES
from tests.unit.gateways.s3.asgi import Answer, Driver

_BODIES = (b"a" * PART_MIN_BYTES, b"b" * PART_MIN_BYTES, b"c")
_ALL = {"x-amz-object-attributes": "ETag,Checksum,ObjectParts,StorageClass,ObjectSize"}


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        yield running


def _crc(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def _texts(answer: Answer, name: str) -> list[str]:
    return [piece.partition(f"</{name}>")[0] for piece in answer.body.decode().split(f"<{name}>")[1:]]


async def _upload(driver: Driver, kind: str | None) -> None:
    headers = {"x-amz-checksum-algorithm": "CRC32"} | ({"x-amz-checksum-type": kind} if kind else {})
    started = await driver.request("POST", "/bucket/k", [("uploads", "")], headers)
    (upload,) = _texts(started, "UploadId")
    document = "<CompleteMultipartUpload>"
    for number, body in enumerate(_BODIES, 1):
        query = [("partNumber", str(number)), ("uploadId", upload)]
        part = await driver.request("PUT", "/bucket/k", query, {"x-amz-checksum-crc32": _crc(body)}, body)
        etag = part.headers["etag"].strip('"')
        document += f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
    whole = (document + "</CompleteMultipartUpload>").encode()
    assert (await driver.request("POST", "/bucket/k", [("uploadId", upload)], {}, whole)).status == 200


@pytest.mark.parametrize("kind", [None, "COMPOSITE", "FULL_OBJECT"])
async def test_the_type_that_an_upload_was_started_with_is_kept(driver: Driver, kind: str | None) -> None:
    await _upload(driver, kind)
    found = await driver.request("HEAD", "/bucket/k", headers={"x-amz-checksum-mode": "ENABLED"})
    assert found.headers["x-amz-checksum-type"] == (kind or "COMPOSITE")
    if kind == "FULL_OBJECT":
        assert found.headers["x-amz-checksum-crc32"] == _crc(b"".join(_BODIES))
    for number, body in enumerate(_BODIES, 1):
        query = [("partNumber", str(number))]
        part = await driver.request("GET", "/bucket/k", query, {"x-amz-checksum-mode": "ENABLED"})
        assert (part.body, part.headers["x-amz-checksum-crc32"]) == (body, _crc(body))
        assert "x-amz-checksum-crc32" not in (await driver.request("GET", "/bucket/k", query)).headers


async def test_parts_are_told_in_pages(driver: Driver) -> None:
    await _upload(driver, None)
    whole = await driver.request("GET", "/bucket/k", [("attributes", "")], _ALL)
    assert _texts(whole, "PartsCount") == ["3"]
    assert _texts(whole, "Size") == [str(len(body)) for body in _BODIES]
    assert _texts(whole, "ChecksumCRC32")[1:] == [_crc(body) for body in _BODIES]
    assert _texts(whole, "IsTruncated") == ["false"]
    paged = {**_ALL, "x-amz-max-parts": "1", "x-amz-part-number-marker": "1"}
    page = await driver.request("GET", "/bucket/k", [("attributes", "")], paged)
    assert (_texts(page, "PartNumber"), _texts(page, "IsTruncated")) == (["2"], ["true"])
    assert _texts(page, "NextPartNumberMarker") == ["2"]
    paged["x-amz-part-number-marker"] = "99"
    behind = await driver.request("GET", "/bucket/k", [("attributes", "")], paged)
    assert (_texts(behind, "PartNumber"), _texts(behind, "IsTruncated")) == ([], ["false"])
    paged["x-amz-max-parts"] = "x"
    assert (await driver.request("GET", "/bucket/k", [("attributes", "")], paged)).status == 400
