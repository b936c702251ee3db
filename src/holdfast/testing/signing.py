"""AWS Signature Version 4 for the load generator and the proofs: whole requests, and the chunks of a streamed upload.

It is cheap, and shares code with the command line but none with the gateway that verifies. It is held to botocore's
signatures and to the vectors of AWS's documents
(https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html).
"""

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote

from holdfast.cli.client.signing import authorization, signing_key
from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB

UNSIGNED = "UNSIGNED-PAYLOAD"
CHUNKED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
EMPTY_SHA256 = sha256(b"").hexdigest()

# What minio-go, and so warp, cuts a streamed upload into.
CHUNK_BYTES = 64 * KIB

# ";chunk-signature=" and 64 hex digits and the line's end, and the line's end behind the data.
_CHUNK_FRAME_BYTES = len(";chunk-signature=") + 64 + 2 + 2


@dataclass(frozen=True, slots=True)
class Signer:
    """One key pair in one region."""

    access_key: str
    secret_key: str
    region: str = "us-east-1"

    def sign(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]],
        headers: Mapping[str, str],
        payload_sha256: str,
        date: str,
    ) -> dict[str, str]:
        """`headers` with what makes them a signed request.

        `path` is what travels, already quoted; `query` is not quoted yet; header names are lower-case and "host" is
        among them; `payload_sha256` is hex, UNSIGNED or CHUNKED; `date` is as "20130524T000000Z". Every header is
        signed.
        """
        signed = {**headers, "x-amz-content-sha256": payload_sha256, "x-amz-date": date}
        signed["authorization"] = authorization(
            method, path, canonical_query(query), signed, payload_sha256, self.access_key, self._key(date), self.region
        )
        return signed

    def chunks(
        self, body: Buffer, seed: str, date: str, digests: Sequence[str] = ()
    ) -> Iterator[tuple[bytes, memoryview, bytes]]:
        """The pieces of a CHUNKED body, the empty last one included: frame, data, end of line.

        `seed` is the signature of the request's head. `digests` are those of the chunks (`chunk_digests`), for a
        client that sends the same body often.
        """
        digests = digests or chunk_digests(body)
        key = self._key(date)
        scope = f"{date[:8]}/{self.region}/s3/aws4_request"
        view = memoryview(body)
        previous = seed
        for number, digest in enumerate(digests):
            data = view[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
            text = f"AWS4-HMAC-SHA256-PAYLOAD\n{date}\n{scope}\n{previous}\n{EMPTY_SHA256}\n{digest}"
            previous = hmac.digest(key, text.encode(), "sha256").hex()
            yield f"{len(data):x};chunk-signature={previous}\r\n".encode(), data, b"\r\n"

    def _key(self, date: str) -> bytes:
        return signing_key(self.secret_key, date[:8], self.region)


def chunk_digests(body: Buffer) -> list[str]:
    """SHA-256 of each chunk, the empty last one included."""
    view = memoryview(body)
    return [*(sha256(view[start : start + CHUNK_BYTES]).hexdigest() for start in range(0, len(view), CHUNK_BYTES)),
            EMPTY_SHA256]  # fmt: skip


def signature(headers: Mapping[str, str]) -> str:
    """The signature in the headers that `Signer.sign` made."""
    return headers["authorization"].rpartition("=")[2]


def canonical_query(query: Iterable[tuple[str, str]]) -> str:
    """Quoted, and in order of name, then value: what is signed, and just as well what travels.

    Pairs are sorted, not the joined strings: "a" comes before "a-b", while "a-b=" comes before "a=".
    """
    pairs = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query)
    return "&".join(f"{name}={value}" for name, value in pairs)


def chunked_length(length: int) -> int:
    """Content-Length of a CHUNKED body of `length` bytes."""
    whole, rest = divmod(length, CHUNK_BYTES)
    sizes = [(CHUNK_BYTES, whole), (rest, 1 if rest else 0), (0, 1)]
    return sum(count * (len(f"{size:x}") + _CHUNK_FRAME_BYTES + size) for size, count in sizes)
