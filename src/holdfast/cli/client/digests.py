"""What was sent is what arrived: checksums of S3's answers, and of bytes here.

A server that knows CRC64NVME confirms it for every object and part. From any other, the ETag is an MD5 of what was
sent whole, or of the MD5s of the parts; only with keys of its own (SSE-KMS, SSE-C) does it say nothing.
"""

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from holdfast.core import crc
from holdfast.core.errors import Corrupt
from holdfast.core.ids import Buffer

_PLAIN_ETAG = re.compile(r"[0-9a-f]{32}")
_PARTS_ETAG = re.compile(r"([0-9a-f]{32})-([1-9][0-9]*)")


class Running(Protocol):
    """A checksum of bytes that pass by."""

    def update(self, data: Buffer, /) -> None: ...

    def text(self) -> str:
        """As S3 writes it."""
        ...


class _Crc:
    def __init__(self, step: Callable[[Any, int], int], length: int) -> None:
        self._step, self._length, self._value = step, length, 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._step(data, self._value)

    def text(self) -> str:
        return base64.b64encode(self._value.to_bytes(self._length, "big")).decode()


class _Sha:
    def __init__(self, name: str) -> None:
        self._hash = hashlib.new(name, usedforsecurity=False)
        self.update = self._hash.update

    def text(self) -> str:
        return base64.b64encode(self._hash.digest()).decode()


class _Md5:
    """An ETag of an object that was put whole."""

    def __init__(self) -> None:
        self._hash = hashlib.md5(usedforsecurity=False)
        self.update = self._hash.update

    def text(self) -> str:
        return self._hash.hexdigest()


class _PartsMd5:
    """An ETag of an upload in parts of one length."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._digests: list[bytes] = []
        self._part, self._filled = hashlib.md5(usedforsecurity=False), 0

    def update(self, data: Buffer, /) -> None:
        view = memoryview(data)
        while view:
            if self._filled == self._part_bytes:
                self._digests.append(self._part.digest())
                self._part, self._filled = hashlib.md5(usedforsecurity=False), 0
            taken = view[: self._part_bytes - self._filled]
            self._part.update(taken)
            self._filled += len(taken)
            view = view[len(taken) :]

    def text(self) -> str:
        digests = [*self._digests, self._part.digest()]
        return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


# Cheapest first: one is enough.
_ALGORITHMS: dict[str, Callable[[], Running]] = {
    "ChecksumCRC64NVME": lambda: _Crc(crc.crc64nvme, 8),
    "ChecksumCRC32C": lambda: _Crc(crc.crc32c, 4),
    "ChecksumCRC32": lambda: _Crc(zlib.crc32, 4),
    "ChecksumSHA256": lambda: _Sha("sha256"),
    "ChecksumSHA1": lambda: _Sha("sha1"),
}


def as_text(crc64nvme: int) -> str:
    """As S3 writes it."""
    return base64.b64encode(crc64nvme.to_bytes(8, "big")).decode()


def md5_hex(data: Buffer) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def md5_text(data: Buffer) -> str:
    """As Content-MD5 has it."""
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def etag_of(answer: Mapping[str, Any]) -> str:
    """Without quotes; "" when there is none."""
    return str(answer.get("ETag", "")).strip('"')


def is_plain_md5(etag: str) -> bool:
    """Whether the ETag may be the MD5 of the whole."""
    return _PLAIN_ETAG.fullmatch(etag) is not None


def _has_own_keys(answer: Mapping[str, Any]) -> bool:
    """Whether the server sealed it in a way that makes its ETag something else than an MD5."""
    return str(answer.get("ServerSideEncryption", "")).startswith("aws:kms") or "SSECustomerAlgorithm" in answer


def check_sent(answer: Mapping[str, Any], data: Buffer, crc: int, what: str) -> None:
    """The server has what was sent. Raises Corrupt; an answer that says nothing of it is taken at its word."""
    confirmed = answer.get("ChecksumCRC64NVME")
    if confirmed is not None:
        if confirmed != as_text(crc):
            raise Corrupt(f"{what}: the server has other bytes than were sent (CRC64NVME {confirmed})")
        return
    etag = etag_of(answer)
    if is_plain_md5(etag) and not _has_own_keys(answer) and etag != md5_hex(data):
        raise Corrupt(f"{what}: the server has other bytes than were sent (ETag {etag})")


@dataclass(frozen=True, slots=True)
class Expected:
    """What an object's bytes must come to. `name` is the answer's field, "ETag" or "parts" for MD5s."""

    name: str
    value: str
    part_bytes: int = 0

    def start(self) -> Running:
        if self.name == "parts":
            return _PartsMd5(self.part_bytes)
        return _Md5() if self.name == "ETag" else _ALGORITHMS[self.name]()

    def check(self, found: Running, what: str) -> None:
        """Raises Corrupt unless it is what was expected."""
        if (text := found.text()) != self.value:
            name = self.name.removeprefix("Checksum")
            raise Corrupt(f"{what}: the bytes that arrived have {name} {text}, and must have {self.value}")


def expected_of(answer: Mapping[str, Any]) -> Expected | None:
    """The cheapest proof that an answer of Get or HeadObject carries; None when it carries none of the whole."""
    if answer.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
        for name in _ALGORITHMS:
            value = answer.get(name)
            if value is not None and "-" not in value and _is_base64(value):
                return Expected(name, value)
    etag = etag_of(answer)
    if is_plain_md5(etag) and not _has_own_keys(answer):
        return Expected("ETag", etag)
    return None


def expected_of_parts(answer: Mapping[str, Any], first_part: Mapping[str, Any], size: int) -> Expected | None:
    """The proof by the MD5s of parts, if they are all as long as the first but the last."""
    match = _PARTS_ETAG.fullmatch(etag_of(answer))
    length = int(first_part.get("ContentLength", 0))
    if match is None or not length or _has_own_keys(answer):
        return None
    return Expected("parts", match[0], length) if -(-size // length) == int(match[2]) else None


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True
