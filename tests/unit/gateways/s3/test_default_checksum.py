"""What came without a checksum is given a CRC64NVME, as in S3."""

import base64
import zlib
from collections.abc import AsyncIterator

import pytest

from holdfast.core.limits import PART_MIN_BYTES
from tests.unit.gateways.s3.asgi import Answer, Driver

_ENABLED = {"x-amz-checksum-mode": "ENABLED"}
# Polynomial of NVM Express, reflected.
_POLYNOMIAL = 0x9A6C9329AC4BC9B5


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def crc64nvme(data: bytes) -> str:
    """By the definition, a byte at a time: shares nothing with what is tested."""
    value = 2**64 - 1
    for byte in data:
        value = value >> 8 ^ _TABLE[(value ^ byte) & 255]
    return base64.b64encode((value ^ 2**64 - 1).to_bytes(8, "big")).decode()


@pytest.fixture
async def driver() -> AsyncIterator[Driver]:
    async with Driver().running() as running:
        yield running


def _text(answer: Answer, name: str) -> str:
    return answer.body.decode().partition(f"<{name}>")[2].partition(f"</{name}>")[0]


def test_the_reference() -> None:
    """The check value of the CRC catalogue."""
    assert crc64nvme(b"123456789") == base64.b64encode(bytes.fromhex("ae8b14860a799888")).decode()


@pytest.mark.parametrize("length", [0, 3, 100_000])
async def test_of_an_object(driver: Driver, length: int) -> None:
    body = bytes(range(251)) * (length // 251 + 1)
    body = body[:length]
    put = await driver.request("PUT", "/bucket/k", body=body)
    expected = {"x-amz-checksum-crc64nvme": crc64nvme(body), "x-amz-checksum-type": "FULL_OBJECT"}
    assert expected.items() <= put.headers.items()
    assert expected.items() <= (await driver.request("GET", "/bucket/k", headers=_ENABLED)).headers.items()
    assert not expected.keys() & (await driver.request("GET", "/bucket/k")).headers.keys()
    copied = await driver.request("PUT", "/bucket/c", headers={"x-amz-copy-source": "/bucket/k"})
    assert _text(copied, "ChecksumCRC64NVME") == crc64nvme(body)


async def test_one_that_came_is_kept_alone(driver: Driver) -> None:
    await driver.request("PUT", "/bucket/k", headers={"x-amz-checksum-crc32": "NSRBwg=="}, body=b"abc")
    names = [
        name for name in (await driver.request("GET", "/bucket/k", headers=_ENABLED)).headers if "checksum-c" in name
    ]
    assert names == ["x-amz-checksum-crc32"]


async def test_of_an_object_in_parts(driver: Driver) -> None:
    """The parts' own are put together; a part that is a range of an object with another checksum has one too."""
    source = bytes(range(253)) * (PART_MIN_BYTES // 253 + 1)
    crc32 = base64.b64encode(zlib.crc32(source).to_bytes(4, "big")).decode()
    await driver.request("PUT", "/bucket/source", headers={"x-amz-checksum-crc32": crc32}, body=source)
    started = await driver.request("POST", "/bucket/k", [("uploads", "")])
    assert "x-amz-checksum-algorithm" not in started.headers
    upload = _text(started, "UploadId")
    copied = await driver.request(
        "PUT",
        "/bucket/k",
        [("partNumber", "1"), ("uploadId", upload)],
        {"x-amz-copy-source": "/bucket/source", "x-amz-copy-source-range": f"bytes=1-{PART_MIN_BYTES}"},
    )
    sent = await driver.request("PUT", "/bucket/k", [("partNumber", "2"), ("uploadId", upload)], body=b"end")
    assert sent.headers["x-amz-checksum-crc64nvme"] == crc64nvme(b"end")
    etags = (_text(copied, "ETag").strip("&quot;"), sent.headers["etag"].strip('"'))
    named = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>" for number, etag in enumerate(etags, 1)
    )
    document = f"<CompleteMultipartUpload>{named}</CompleteMultipartUpload>".encode()
    whole = crc64nvme(source[1 : PART_MIN_BYTES + 1] + b"end")
    wrong = {"x-amz-checksum-crc64nvme": crc64nvme(b"other")}
    refused = await driver.request("POST", "/bucket/k", [("uploadId", upload)], wrong, document)
    assert _text(refused, "Code") == "BadDigest"
    done = await driver.request("POST", "/bucket/k", [("uploadId", upload)], {}, document)
    assert (_text(done, "ChecksumCRC64NVME"), _text(done, "ChecksumType")) == (whole, "FULL_OBJECT")
