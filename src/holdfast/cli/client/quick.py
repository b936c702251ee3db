"""PutObject and GetObject of small objects past botocore's machinery, which takes four fifths of such a request's time.

Rules.

- Only what went well is answered here. For all else (another status, no answer, a parameter or a key that is out of the
  ordinary) the answer is None, and the caller asks by botocore, which tries again, follows redirects and says what is
  wrong. Either request may be sent twice.
- Where to, and with which credentials, is botocore's to say: the address is taken from a link that it signs, once for
  each bucket. A bucket that was not served a few times running is left to botocore for good.
- Every header is signed; so is the body's SHA-256, unless TLS keeps it.
"""

import io
import ssl
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.exceptions import BotoCoreError

from holdfast.cli.client.signing import authorization, signing_key

# Of a bucket in turn, before it is left to botocore: a redirect to another region, a server that is too busy.
_REFUSALS_MAX_COUNT = 3

# Above this what is saved cannot be noticed.
SMALL_MAX_BYTES = 1 << 20

_METHODS = {"put_object": "PUT", "get_object": "GET"}
_REQUEST_HEADERS = {
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ChecksumMode": "x-amz-checksum-mode",
    "ContentMD5": "content-md5",
    "ContentType": "content-type",
    "IfNoneMatch": "if-none-match",
}
_ANSWER_HEADERS = {
    "ETag": "etag",
    "ChecksumCRC64NVME": "x-amz-checksum-crc64nvme",
    "ChecksumCRC32C": "x-amz-checksum-crc32c",
    "ChecksumCRC32": "x-amz-checksum-crc32",
    "ChecksumSHA256": "x-amz-checksum-sha256",
    "ChecksumSHA1": "x-amz-checksum-sha1",
    "ChecksumType": "x-amz-checksum-type",
    "ServerSideEncryption": "x-amz-server-side-encryption",
    "SSECustomerAlgorithm": "x-amz-server-side-encryption-customer-algorithm",
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What botocore was configured with, and how it is asked for more."""

    sign_link: Callable[[str], str]
    """A presigned URL of the key "k" in a bucket."""
    credentials: Callable[[], Any]
    """botocore's frozen ones, as they are now."""
    region: str
    now: Callable[[], datetime]
    tls: Callable[[], ssl.SSLContext]
    user_agent: str
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class _Address:
    """`path` ends where the key begins."""

    secure: bool
    host: str
    path: str


class Lane:
    """Requests to one endpoint, from any number of threads: each has a connection of its own for each host."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._addresses: dict[str, _Address | None] = {}
        self._refusals: dict[str, int] = {}
        self._local = threading.local()
        self._tls: ssl.SSLContext | None = None
        self._made: list[HTTPConnection] = []
        weakref.finalize(self, _close, self._made)

    def ask(self, operation: str, bucket: str, key: str, parameters: Mapping[str, Any]) -> dict[str, Any] | None:
        """What botocore would answer to put_object or get_object; None when botocore is to be asked."""
        given = dict(parameters)
        body = given.pop("Body", b"")
        if self._refusals.get(bucket, 0) >= _REFUSALS_MAX_COUNT or not given.keys() <= _REQUEST_HEADERS.keys():
            return None
        try:
            address = self._address(bucket)
            if address is None:
                return None
            headers = {_REQUEST_HEADERS[name]: str(value) for name, value in given.items()}
            answer = self._send(address, _METHODS[operation], address.path + quote(key, safe="/-_.~"), headers, body)
        except (OSError, HTTPException, BotoCoreError, ValueError):
            answer = None
            self._drop()
        self._refusals[bucket] = 0 if answer is not None else self._refusals.get(bucket, 0) + 1
        return answer

    def _address(self, bucket: str) -> _Address | None:
        if bucket not in self._addresses:
            url = urlsplit(self._endpoint.sign_link(bucket))
            is_plain = "X-Amz-Algorithm=AWS4-HMAC-SHA256&" in url.query and url.path.endswith("/k")
            host = url.netloc.rpartition("@")[2]
            self._addresses[bucket] = _Address(url.scheme == "https", host, url.path[:-1]) if is_plain else None
        return self._addresses[bucket]

    def _send(
        self, address: _Address, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> dict[str, Any] | None:
        payload = "UNSIGNED-PAYLOAD" if address.secure else sha256(body).hexdigest()
        headers["host"] = address.host
        headers["x-amz-content-sha256"] = payload
        headers["x-amz-date"] = f"{self._endpoint.now():%Y%m%dT%H%M%SZ}"
        credentials = self._endpoint.credentials()
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        day = headers["x-amz-date"][:8]
        key = signing_key(credentials.secret_key, day, self._endpoint.region)
        headers["authorization"] = authorization(
            method, path, "", headers, payload, credentials.access_key, key, self._endpoint.region
        )
        headers["user-agent"] = self._endpoint.user_agent
        try:
            return self._exchange(address, method, path, headers, body)
        except (OSError, HTTPException):
            if not self._local.has_served:
                raise
            # It lay idle for longer than the server keeps it.
            self._drop()
            return self._exchange(address, method, path, headers, body)

    def _exchange(
        self, address: _Address, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> dict[str, Any] | None:
        connection = self._connection(address)
        connection.request(method, path, body=body if method == "PUT" else None, headers=headers)
        answer = connection.getresponse()
        # In one pass, and past the email package's ways to look headers up.
        got = {name.lower(): text for name, text in answer.headers.raw_items()}
        if answer.status != 200 or int(got.get("content-length", "0")) > 2 * SMALL_MAX_BYTES:
            self._drop()
            return None
        data = answer.read()
        self._local.has_served = True
        return _fields(got, data)

    def _connection(self, address: _Address) -> HTTPConnection:
        """This thread's."""
        if getattr(self._local, "address", None) is not address:
            self._drop()
            connection: HTTPConnection
            if address.secure:
                self._tls = self._tls or self._endpoint.tls()
                connection = HTTPSConnection(address.host, timeout=self._endpoint.timeout_seconds, context=self._tls)
            else:
                connection = HTTPConnection(address.host, timeout=self._endpoint.timeout_seconds)
            self._made.append(connection)
            self._local.connection, self._local.address, self._local.has_served = connection, address, False
        made: HTTPConnection = self._local.connection
        return made

    def _drop(self) -> None:
        """Whatever is left of an answer goes with the connection."""
        if getattr(self._local, "address", None) is not None:
            self._local.address = None
            self._local.connection.close()
            self._made.remove(self._local.connection)


def _close(connections: list[HTTPConnection]) -> None:
    for connection in connections:
        connection.close()


def _fields(headers: Mapping[str, str], body: bytes) -> dict[str, Any] | None:
    """An answer as botocore has it."""
    answer: dict[str, Any] = {name: headers[header] for name, header in _ANSWER_HEADERS.items() if header in headers}
    if "ETag" not in answer:
        return None
    modified = headers.get("last-modified")
    if modified is not None:
        answer["LastModified"] = parsedate_to_datetime(modified)
    return {**answer, "ContentLength": len(body), "Body": io.BytesIO(body)}
