"""Checksums of answers, against hashlib and zlib."""

import base64
import hashlib
import zlib
from typing import Any

import pytest

from holdfast.cli.client import digests
from holdfast.core.crc import combine_crc64nvme, crc64nvme
from holdfast.core.errors import Corrupt

BODY = bytes(range(256)) * 100


def sha256_text(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


@pytest.mark.parametrize(
    "answer",
    [
        {"ChecksumSHA256": sha256_text(BODY), "ETag": '"wrong-1"'},
        {"ChecksumCRC32": base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()},
        {"ChecksumCRC64NVME": digests.as_text(crc64nvme(BODY)), "ChecksumType": "FULL_OBJECT"},
        {"ChecksumSHA1": base64.b64encode(hashlib.sha1(BODY).digest()).decode()},
        {"ETag": f'"{hashlib.md5(BODY).hexdigest()}"'},
        {"ETag": f'"{hashlib.md5(BODY).hexdigest()}"', "ChecksumCRC32": "AAAAAA==-3", "ChecksumType": "COMPOSITE"},
    ],
)
def test_the_proof_that_an_answer_carries(answer: dict[str, Any]) -> None:
    expected = digests.expected_of(answer)
    assert expected is not None
    for body, is_right in ((BODY, True), (BODY[:-1] + b"x", False), (BODY[1:], False)):
        found = expected.start()
        for at in range(0, len(body), 1000):
            found.update(body[at : at + 1000])
        if is_right:
            expected.check(found, "it")
        else:
            with pytest.raises(Corrupt, match="it: the bytes that arrived have"):
                expected.check(found, "it")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"ETag": '"0123456789abcdef0123456789abcdef-2"'},
        {"ETag": f'"{hashlib.md5(BODY).hexdigest()}"', "ServerSideEncryption": "aws:kms"},
        {"ChecksumCRC32": "AAAAAA==", "ChecksumType": "COMPOSITE"},
    ],
)
def test_an_answer_without_proof_of_the_whole(answer: dict[str, Any]) -> None:
    assert digests.expected_of(answer) is None


@pytest.mark.parametrize("size", [1, 99, 100, 101, 250, 300])
def test_the_etag_of_parts(size: int) -> None:
    body = BODY[:size]
    parts = [hashlib.md5(body[at : at + 100]).digest() for at in range(0, size, 100)]
    etag = f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"
    expected = digests.expected_of_parts({"ETag": f'"{etag}"'}, {"ContentLength": min(size, 100)}, size)
    assert expected is not None
    found = expected.start()
    for at in range(0, size, 7):
        found.update(body[at : at + 7])
    expected.check(found, "it")


def test_parts_of_unknown_lengths_prove_nothing() -> None:
    etag = '"0123456789abcdef0123456789abcdef-3"'
    assert digests.expected_of_parts({"ETag": etag}, {"ContentLength": 100}, 400) is None


def test_what_was_sent_must_be_confirmed() -> None:
    crc = crc64nvme(BODY)
    digests.check_sent({"ChecksumCRC64NVME": digests.as_text(crc), "ETag": '"whatever"'}, BODY, crc, "it")
    digests.check_sent({"ETag": f'"{hashlib.md5(BODY).hexdigest()}"'}, BODY, crc, "it")
    with pytest.raises(Corrupt):
        digests.check_sent({"ChecksumCRC64NVME": digests.as_text(crc ^ 1)}, BODY, crc, "it")
    with pytest.raises(Corrupt):
        digests.check_sent({"ETag": f'"{hashlib.md5(b"").hexdigest()}"'}, BODY, crc, "it")


def test_crcs_are_put_together() -> None:
    one, other = BODY[:1234], BODY[1234:]
    assert combine_crc64nvme(crc64nvme(one), crc64nvme(other), len(other)) == crc64nvme(BODY)
