"""A blocking S3 client over one raw connection: cheap, and honest about what it does not know.

It retries nothing. Whatever leaves the outcome of a request open (a broken connection, a timeout, a short answer)
raises `NoAnswer`, and the next request opens a new connection; so a history recorded through it has no hidden second
attempt. One thread at a time.
"""

import re
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from html import unescape
from types import TracebackType
from typing import Self
from urllib.parse import quote

from holdfast.core.ids import Buffer
from holdfast.core.limits import KIB
from holdfast.testing.signing import UNSIGNED, Signer, canonical_query

# An answer's head is longer than this only when the server is out of its mind.
HEAD_MAX_BYTES = 64 * KIB

# Generous: a stall is a finding of its own, but not of every test.
ANSWER_MAX_SECONDS = 60.0

_CONTENTS = re.compile(rb"<Contents>.*?</Contents>", re.DOTALL)
_KEY = re.compile(rb"<Key>(.*?)</Key>", re.DOTALL)
_ETAG = re.compile(rb"<ETag>(.*?)</ETag>", re.DOTALL)
_TOKEN = re.compile(rb"<NextContinuationToken>(.*?)</NextContinuationToken>", re.DOTALL)
_UPLOAD_ID = re.compile(rb"<UploadId>(.*?)</UploadId>", re.DOTALL)


class NoAnswer(Exception):
    """The request may have been carried out, or not, or may be yet."""


class NotSent(NoAnswer):
    """The connection could not even be opened: nothing was carried out, nor will be."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Lower-case names; of a repeated header the last."""
    body: bytes

    @property
    def etag(self) -> str:
        """Without quotes."""
        return self.headers["etag"].strip('"')


@dataclass(frozen=True, slots=True)
class ListedPage:
    etags: Mapping[str, str]
    token: str | None
    """Where to go on; None when this was the last page."""


def amz_date() -> str:
    """Now, as signatures date it. A client of a real server needs the real time."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def quote_key(key: str) -> str:
    """As it travels in a path and as it is signed."""
    return quote(key, safe="/-_.~")


class S3Client:
    """Calls to one endpoint, path style."""

    def __init__(
        self, address: tuple[str, int], signer: Signer, *, timeout_seconds: float = ANSWER_MAX_SECONDS
    ) -> None:
        self._address = address
        self._signer = signer
        self._timeout_seconds = timeout_seconds
        self._socket: socket.socket | None = None
        self._host = f"{address[0]}:{address[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def request(
        self,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        body: Buffer = b"",
    ) -> Answer:
        """One request and its answer, whatever the status. Raises NoAnswer, and NotSent if it surely did nothing."""
        query = list(query)
        payload = sha256(body).hexdigest() if len(body) <= HEAD_MAX_BYTES else UNSIGNED
        given = {"host": self._host, "content-length": str(len(body)), **(headers or {})}
        signed = self._signer.sign(method, path, query, given, payload, amz_date())
        target = path + ("?" + canonical_query(query) if query else "")
        lines = "".join(f"{name}: {value}\r\n" for name, value in signed.items())
        head = f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode()
        try:
            connection = self._connect()
        except OSError as error:
            raise NotSent(f"{method} {path}: {error!r}") from error
        try:
            try:
                if len(body) <= HEAD_MAX_BYTES:
                    connection.sendall(head + bytes(body))
                else:
                    connection.sendall(head)
                    connection.sendall(body)
            except (BrokenPipeError, ConnectionResetError):
                # A server that refuses need not read on: what it said came before it hung up.
                pass
            return self._receive(connection, method)
        except (OSError, ValueError, EOFError) as error:
            self.close()
            raise NoAnswer(f"{method} {path}: {error!r}") from error

    def _connect(self) -> socket.socket:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, self._timeout_seconds)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _receive(self, connection: socket.socket, method: str) -> Answer:
        received = bytearray()
        while (end := received.find(b"\r\n\r\n")) < 0:
            piece = connection.recv(HEAD_MAX_BYTES)
            if not piece or len(received) > HEAD_MAX_BYTES:
                raise EOFError(f"connection ended in the answer's head, after {len(received)} bytes")
            received += piece
        status, headers = parse_head(bytes(received[:end]))
        rest = memoryview(received)[end + 4 :]
        if method == "HEAD" or status in (204, 304):
            body = b""
        elif headers.get("transfer-encoding", "").lower() == "chunked":
            body = _read_chunked(connection, bytes(rest))
        else:
            body = _read_exactly(connection, rest, int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    # The calls that the proofs make.

    def make_bucket(self, bucket: str) -> Answer:
        return self.request("PUT", f"/{bucket}")

    def put(self, bucket: str, key: str, body: Buffer, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("PUT", f"/{bucket}/{quote_key(key)}", headers=headers, body=body)

    def get(self, bucket: str, key: str, headers: Mapping[str, str] | None = None) -> Answer:
        return self.request("GET", f"/{bucket}/{quote_key(key)}", headers=headers)

    def head(self, bucket: str, key: str) -> Answer:
        return self.request("HEAD", f"/{bucket}/{quote_key(key)}")

    def delete(self, bucket: str, key: str) -> Answer:
        return self.request("DELETE", f"/{bucket}/{quote_key(key)}")

    def list_page(self, bucket: str, prefix: str = "", token: str | None = None, count: int = 1000) -> ListedPage:
        """One page of ListObjectsV2. Raises NoAnswer for any answer but 200, too."""
        query = [("list-type", "2"), ("prefix", prefix), ("max-keys", str(count))]
        if token is not None:
            query.append(("continuation-token", token))
        answer = self.request("GET", f"/{bucket}", query)
        if answer.status != 200:
            raise NoAnswer(f"list {bucket}/{prefix}: {answer.status} {answer.body[:200]!r}")
        return parse_listing(answer.body)

    def list_all(self, bucket: str, prefix: str = "") -> dict[str, str]:
        """Key to ETag of everything under `prefix`."""
        found: dict[str, str] = {}
        token = None
        while True:
            page = self.list_page(bucket, prefix, token)
            found.update(page.etags)
            if page.token is None:
                return found
            token = page.token

    def multipart(self, bucket: str, key: str, parts: Iterable[Buffer]) -> Answer:
        """A multipart upload from create to complete; the answer of the first call that was refused, or the last."""
        path = f"/{bucket}/{quote_key(key)}"
        created = self.request("POST", path, [("uploads", "")])
        if created.status != 200:
            return created
        upload = ("uploadId", _text(_UPLOAD_ID, created.body))
        listed = []
        for number, part in enumerate(parts, 1):
            answer = self.request("PUT", path, [("partNumber", str(number)), upload], body=part)
            if answer.status != 200:
                return answer
            listed.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{answer.headers['etag']}</ETag></Part>")
        body = f"<CompleteMultipartUpload>{''.join(listed)}</CompleteMultipartUpload>".encode()
        return self.request("POST", path, [upload], body=body)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer, without the empty line. Raises ValueError."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    version, status, *_ = status_line.split(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError(f"not HTTP: {status_line[:80]!r}")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise ValueError(f"not a header: {line[:80]!r}")
        headers[name.lower()] = value.strip()
    return int(status), headers


def parse_listing(body: bytes) -> ListedPage:
    """Keys, ETags and the continuation of a ListObjectsV2 answer."""
    etags = {_text(_KEY, entry): _text(_ETAG, entry).strip('"') for entry in _CONTENTS.findall(body)}
    return ListedPage(etags, _text(_TOKEN, body) if _TOKEN.search(body) else None)


def _text(pattern: re.Pattern[bytes], body: bytes) -> str:
    match = pattern.search(body)
    if match is None:
        raise ValueError(f"no {pattern.pattern!r} in {body[:200]!r}")
    return unescape(match[1].decode())


def _read_exactly(connection: socket.socket, start: Buffer, length: int) -> bytes:
    body = bytearray(length)
    filled = len(start)
    if filled > length:
        raise ValueError(f"{filled - length} bytes behind the end of the answer")
    body[:filled] = start
    view = memoryview(body)
    while filled < length:
        count = connection.recv_into(view[filled:])
        if not count:
            raise EOFError(f"connection ended after {filled} of {length} bytes")
        filled += count
    return bytes(body)


def _read_chunked(connection: socket.socket, start: bytes) -> bytes:
    buffered = bytearray(start)

    def fill() -> None:
        piece = connection.recv(HEAD_MAX_BYTES)
        if not piece:
            raise EOFError("connection ended in a chunked answer")
        buffered.extend(piece)

    body = bytearray()
    while True:
        while (line_end := buffered.find(b"\r\n")) < 0:
            fill()
        size = int(buffered[:line_end].partition(b";")[0], 16)
        del buffered[: line_end + 2]
        while len(buffered) < size + 2:
            fill()
        if not size:
            return bytes(body)
        body += buffered[:size]
        del buffered[: size + 2]
