"""What a body must hash to: Content-MD5, the payload's SHA-256, and S3's `x-amz-checksum-*` in headers and trailers.

Rules. What is kept has a checksum: the one that came with it, else a CRC64NVME of our own, as in S3. Hashes are
computed where the body streams by (`PutOptions.digests`), never here; this file says which are needed, compares when
the body has ended, and gives what is to be kept with the object. CRCs are big-endian bytes, as S3 encodes them. Nothing
is compared before the aws-chunked coding has ended well.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html
"""

import base64
import binascii
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from hmac import compare_digest

from msgspec import Struct

from holdfast.core import crc
from holdfast.gateways.s3.chunked import ChunkDecoder
from holdfast.gateways.s3.errors import S3Error, not_implemented
from holdfast.objects.model import Digests, Part

ALGORITHM_BYTES: Mapping[str, int] = {"crc32": 4, "crc32c": 4, "crc64nvme": 8, "sha1": 20, "sha256": 32}
"""S3's checksum algorithms, lower case, and the length of their results."""

HEADERS = frozenset(f"x-amz-checksum-{name}" for name in ALGORITHM_BYTES)

# Of a body that came without any, as S3 does it. It costs a fifteenth of the MD5 that is computed in any case.
DEFAULT_ALGORITHM = "crc64nvme"
FULL_OBJECT = "FULL_OBJECT"
COMPOSITE = "COMPOSITE"
_PREFIX = "x-amz-checksum-"
_MD5_BYTES = 16


class BodyChecks(Struct, frozen=True):
    """What one body was announced to be."""

    md5: bytes | None = None
    payload_sha256: bytes | None = None
    algorithm: str | None = None
    """The checksum's, lower case; its value is in `value`, or comes in a trailer when that is None."""
    value: str | None = None
    decoder: ChunkDecoder | None = None

    @property
    def digests(self) -> tuple[str, ...]:
        """Names of the hashes needed beside MD5, which is always there."""
        names = {self.algorithm or DEFAULT_ALGORITHM}
        if self.payload_sha256 is not None:
            names.add("sha256")
        return tuple(sorted(names))

    def check(self, digests: Digests) -> Mapping[str, str]:
        """Compare; the checksums to keep. Raises S3Error BadDigest, XAmzContentSHA256Mismatch."""
        if self.decoder is not None:
            self.decoder.finish()
        if self.md5 is not None and not compare_digest(self.md5, digests.values["md5"]):
            raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
        if self.payload_sha256 is not None and not compare_digest(self.payload_sha256, digests.values["sha256"]):
            raise payload_mismatch()
        if self.algorithm is None:
            return {DEFAULT_ALGORITHM: _encode(digests.values[DEFAULT_ALGORITHM])}
        return {self.algorithm: self._checked(digests.values[self.algorithm])}

    def _checked(self, digest: bytes) -> str:
        """The checksum in base64, compared with what the header or the trailer said."""
        assert self.algorithm is not None
        announced = self.value
        if announced is None:
            assert self.decoder is not None
            announced = self.decoder.trailers[_PREFIX + self.algorithm]
            _decode(self.algorithm, announced)
        found = _encode(digest)
        if not compare_digest(found, announced):
            raise S3Error("BadDigest", f"The {self.algorithm.upper()} you specified did not match what we received.")
        return found


def check_document(checks: BodyChecks, document: bytes) -> None:
    """The checks on a short body that was read whole. Raises as `BodyChecks.check`."""
    values = {name: digest(name, document) for name in checks.digests}
    if checks.md5 is not None:
        values["md5"] = hashlib.md5(document, usedforsecurity=False).digest()
    checks.check(Digests(len(document), values))


def payload_mismatch() -> S3Error:
    return S3Error(
        "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match what was computed."
    )


def algorithm_of(name: str, header: str) -> str:
    """An algorithm as a header names it ("CRC32C"), in lower case. InvalidRequest for others."""
    lower = name.lower()
    if lower not in ALGORITHM_BYTES:
        raise S3Error("InvalidRequest", f"The value specified in the {header} header is not a checksum algorithm.")
    return lower


def announced_trailers(headers: Mapping[str, str]) -> frozenset[str]:
    """The names in `x-amz-trailer`."""
    return frozenset(name.strip().lower() for name in headers.get("x-amz-trailer", "").split(",") if name.strip())


def from_headers(
    headers: Mapping[str, str], decoder: ChunkDecoder | None, payload_sha256: bytes | None = None
) -> BodyChecks:
    """What the request's headers announce of its body. `payload_sha256` is given when the body will be streamed."""
    md5 = _content_md5(headers)
    given = [name for name in headers if name in HEADERS]
    trailers = list(announced_trailers(headers)) if "x-amz-trailer" in headers else []
    if len(given) + len(trailers) > 1:
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    algorithm = value = None
    if given:
        algorithm = given[0].removeprefix(_PREFIX)
        value = headers[given[0]].strip()
        _decode(algorithm, value)
    elif trailers:
        if trailers[0] not in HEADERS:
            raise not_implemented(f"x-amz-trailer: {trailers[0]}")
        if decoder is None:
            raise S3Error("InvalidRequest", "x-amz-trailer needs a body in the aws-chunked coding with trailers.")
        algorithm = trailers[0].removeprefix(_PREFIX)
    wanted = headers.get("x-amz-sdk-checksum-algorithm")
    if wanted is not None and algorithm_of(wanted, "x-amz-sdk-checksum-algorithm") != algorithm:
        raise S3Error(
            "InvalidRequest",
            "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers "
            "were found.",
        )
    return BodyChecks(md5, payload_sha256, algorithm, value, decoder)


def _content_md5(headers: Mapping[str, str]) -> bytes | None:
    text = headers.get("content-md5")
    if text is None:
        return None
    try:
        md5 = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        md5 = b""
    if len(md5) != _MD5_BYTES:
        raise S3Error("InvalidDigest", "The Content-MD5 you specified was invalid.")
    return md5


def _encode(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")


def _decode(algorithm: str, value: str) -> bytes:
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != ALGORITHM_BYTES[algorithm]:
        raise S3Error("BadDigest", f"Value for x-amz-checksum-{algorithm} header is invalid.")
    return raw


def checksum_type(value: str) -> str:
    """Whether a stored checksum is of the whole object or made of its parts'."""
    return COMPOSITE if "-" in value else FULL_OBJECT


def default_type(algorithm: str) -> str:
    """What S3 makes of a multipart upload's checksums unless told."""
    return FULL_OBJECT if algorithm == "crc64nvme" else COMPOSITE


def composite(algorithm: str, parts: Sequence[Part]) -> str:
    """The checksum of the parts' checksums, "-" and their number; sha and crc alike."""
    raw = b"".join(_decode(algorithm, part.checksums[algorithm]) for part in parts)
    return f"{_encode(digest(algorithm, raw))}-{len(parts)}"


def full_object(algorithm: str, parts: Sequence[Part]) -> str:
    """The CRC of the whole, combined from the parts' CRCs and lengths. Only for CRCs."""
    combine = {
        "crc32": crc.combine_crc32,
        "crc32c": crc.combine_crc32c,
        "crc64nvme": crc.combine_crc64nvme,
    }[algorithm]
    value = 0
    for part in parts:
        value = combine(value, int.from_bytes(_decode(algorithm, part.checksums[algorithm])), part.size)
    return _encode(value.to_bytes(ALGORITHM_BYTES[algorithm]))


def digest(algorithm: str, data: bytes) -> bytes:
    """One checksum of a short message; the streams are hashed elsewhere."""
    if algorithm.startswith("sha"):
        return hashlib.new(algorithm, data).digest()
    function = {"crc32": zlib.crc32, "crc32c": crc.crc32c, "crc64nvme": crc.crc64nvme}[algorithm]
    return function(data).to_bytes(ALGORITHM_BYTES[algorithm])
