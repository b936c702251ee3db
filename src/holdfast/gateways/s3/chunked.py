"""The `aws-chunked` content coding: a decoder without I/O.

    signed     size-in-hex ";chunk-signature=" 64 hex CRLF  data CRLF  ... 0;chunk-signature=... CRLF
    unsigned   size-in-hex CRLF                             data CRLF  ... 0 CRLF
    trailers   name ":" value CRLF ...  [ "x-amz-trailer-signature:" 64 hex CRLF ]
    end        CRLF

Rules. Data is handed on as it arrives, in slices of what was fed, and nothing of it is kept: whoever stores it must
make nothing visible before `finish` has returned. Each chunk's signature is checked when its last byte is here, each
depends on the one before, and the trailers' on the last chunk's. What is kept is bounded: one header line, and the
trailers. The state only moves along `_STEPS`; after an error, or behind the end, nothing more is accepted.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-streaming.html, sigv4-streaming-trailers.html
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from enum import Enum, auto

from holdfast.core.ids import Buffer
from holdfast.gateways.s3.errors import S3Error
from holdfast.gateways.s3.sigv4 import EMPTY_SHA256, STREAMING_UNSIGNED_TRAILER, Identity
from holdfast.objects.errors import IncompleteBody

# A size of 16 digits, the extension and a signature take 98.
_LINE_MAX_BYTES = 256

# S3 knows seven trailers, none longer than a base64 SHA-256; the rest is room for names of other makers.
_TRAILERS_MAX_BYTES = 4096

_SIGNED_HEADER = re.compile(rb"([0-9a-fA-F]{1,16});chunk-signature=([0-9a-f]{64})")
_UNSIGNED_HEADER = re.compile(rb"([0-9a-fA-F]{1,16})")
_TRAILER = re.compile(rb"([A-Za-z0-9\-]+)[ \t]*:[ \t]*([!-~]*)[ \t]*")
_TRAILER_SIGNATURE = "x-amz-trailer-signature"


class _State(Enum):
    HEADER = auto()
    DATA = auto()
    DATA_END = auto()
    TRAILERS = auto()
    DONE = auto()


class ChunkDecoder:
    """Takes the body as it arrives, gives back what is inside."""

    def __init__(self, identity: Identity, length: int, trailers: frozenset[str] = frozenset()) -> None:
        """`length` is x-amz-decoded-content-length; `trailers` the names that `x-amz-trailer` announced."""
        self.trailers: dict[str, str] = {}
        self._identity = identity
        self._signed = identity.payload != STREAMING_UNSIGNED_TRAILER
        self._has_trailers = identity.payload.endswith("-TRAILER")
        self._announced = trailers
        self._length = length
        self._received = 0
        self._state = _State.HEADER
        self._line = bytearray()
        self._left = 0
        self._previous = identity.signature
        self._signature = ""
        self._hash = hashlib.sha256()
        self._trailer_bytes = 0
        self._trailer_signature: str | None = None
        self._blank_seen = False

    @property
    def finished(self) -> bool:
        """Whether the end of the body was seen, and everything in it was as it must be."""
        return self._state is _State.DONE

    def feed(self, data: Buffer) -> list[memoryview]:
        """The data inside, as slices of `data`. Raises S3Error when the coding or a signature is wrong."""
        view = memoryview(data)
        found: list[memoryview] = []
        position = 0
        while position < len(view):
            if self._state is _State.DATA:
                piece = view[position : position + self._left]
                position += len(piece)
                self._take(piece)
                found.append(piece)
            elif self._state is _State.DONE:
                raise _malformed("there are bytes behind the end of the body")
            else:
                position = self._take_line(data, position, len(view))
        return found

    def finish(self) -> Mapping[str, str]:
        """The trailers; called when the body has ended. Raises IncompleteBody when it ended too early."""
        if self._state is not _State.DONE:
            raise IncompleteBody("the body ended inside the aws-chunked coding")
        return self.trailers

    def _take(self, piece: memoryview) -> None:
        if self._signed:
            self._hash.update(piece)
        self._left -= len(piece)
        if not self._left:
            self._state = _State.DATA_END

    def _take_line(self, data: Buffer, position: int, length: int) -> int:
        """Gather one line, and act on it when it is whole. The position behind what was used."""
        end = bytes(data[position : position + _LINE_MAX_BYTES + 2]).find(b"\n")
        if end < 0:
            stop = min(length, position + _LINE_MAX_BYTES + 2)
            self._line += data[position:stop]
            if len(self._line) > _LINE_MAX_BYTES:
                raise _malformed("a line is too long")
            return stop
        self._line += data[position : position + end]
        if len(self._line) > _LINE_MAX_BYTES + 1:
            raise _malformed("a line is too long")
        line = bytes(self._line)
        self._line.clear()
        _STEPS[self._state](self, line)
        return position + end + 1

    def _on_header(self, line: bytes) -> None:
        match = (_SIGNED_HEADER if self._signed else _UNSIGNED_HEADER).fullmatch(_without_cr(line))
        if match is None:
            raise _malformed("a chunk header is not valid")
        size = int(match[1], 16)
        if self._signed:
            self._signature = match[2].decode("ascii")
        self._received += size
        if self._received > self._length:
            raise _malformed("the body is longer than x-amz-decoded-content-length")
        self._left = size
        if size:
            self._state = _State.DATA
            return
        if self._received != self._length:
            raise IncompleteBody("the body is shorter than x-amz-decoded-content-length")
        self._check_chunk()
        self._state = _State.TRAILERS

    def _on_data_end(self, line: bytes) -> None:
        if line != b"\r":
            raise _malformed("a chunk does not end where its header says")
        self._check_chunk()
        self._state = _State.HEADER

    def _on_trailer(self, line: bytes) -> None:
        text = _without_cr(line) if line.endswith(b"\r") else line
        self._trailer_bytes += len(line)
        if self._trailer_bytes > _TRAILERS_MAX_BYTES:
            raise _malformed_trailer("the trailers are too long")
        if not text:
            self._on_blank()
            return
        match = _TRAILER.fullmatch(text)
        if match is None or not self._has_trailers or self._trailer_signature is not None:
            raise _malformed_trailer("a trailer is not valid")
        name, value = match[1].decode("ascii").lower(), match[2].decode("ascii")
        if name == _TRAILER_SIGNATURE and self._signed:
            self._trailer_signature = value
        elif name in self.trailers or name not in self._announced:
            raise _malformed_trailer(f"the trailer {name} is repeated or was not announced")
        else:
            self.trailers[name] = value

    def _on_blank(self) -> None:
        """An empty line ends the body; one more may stand before the trailers' signature, as AWS's examples have it."""
        if self._signed and self._has_trailers and self._trailer_signature is None:
            if self._blank_seen or not self.trailers:
                raise _malformed_trailer("the trailers are not signed")
            self._blank_seen = True
            return
        if self.trailers.keys() != self._announced:
            raise _malformed_trailer("an announced trailer is missing")
        if self._trailer_signature is not None:
            self._check_trailers(self._trailer_signature)
        self._state = _State.DONE

    def _check_chunk(self) -> None:
        if not self._signed:
            return
        text = f"{EMPTY_SHA256}\n{self._hash.hexdigest()}"
        self._check("AWS4-HMAC-SHA256-PAYLOAD", text, self._signature)
        self._previous = self._signature
        self._hash = hashlib.sha256()

    def _check_trailers(self, signature: str) -> None:
        canonical = "".join(f"{name}:{self.trailers[name]}\n" for name in sorted(self.trailers))
        digest = hashlib.sha256(canonical.encode("ascii")).hexdigest()
        self._check("AWS4-HMAC-SHA256-TRAILER", digest, signature)

    def _check(self, algorithm: str, text: str, signature: str) -> None:
        identity = self._identity
        string = f"{algorithm}\n{identity.timestamp}\n{identity.scope}\n{self._previous}\n{text}"
        expected = identity.signing_key.sign(string.encode("latin-1"))
        if not hmac.compare_digest(expected, signature):
            raise S3Error(
                "SignatureDoesNotMatch",
                "The chunk signature we calculated does not match the signature you provided.",
                details={"AWSAccessKeyId": identity.access_key},
            )


_STEPS: Mapping[_State, Callable[[ChunkDecoder, bytes], None]] = {
    _State.HEADER: ChunkDecoder._on_header,
    _State.DATA_END: ChunkDecoder._on_data_end,
    _State.TRAILERS: ChunkDecoder._on_trailer,
}


def _without_cr(line: bytes) -> bytes:
    if not line.endswith(b"\r"):
        raise _malformed("a line does not end in CR LF")
    return line[:-1]


def _malformed(message: str) -> S3Error:
    return S3Error("InvalidRequest", f"The aws-chunked body is malformed: {message}.")


def _malformed_trailer(message: str) -> S3Error:
    return S3Error("MalformedTrailerError", f"The request contained trailing data that was not well-formed: {message}.")
