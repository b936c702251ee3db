"""The access log: one JSON object a line, one line a request, and no secret in it.

Rules. Of a signature's parameters in a query only the names are kept: whoever reads the log could otherwise use a
presigned URL until it expires. Headers are not logged, but for the user agent.
"""

import re
from collections.abc import Callable

import msgspec

from holdfast.gateways.s3.call import iso_date

# A client can send a path or a user agent as long as its server lets it; the log does not have to keep that.
_TEXT_MAX_CHARS = 2048

_SECRET = re.compile(
    r"((?:^|&)(?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId)=)[^&]*", re.IGNORECASE
)


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    time: str
    request_id: str
    remote: str
    method: str
    path: str
    status: int
    seconds: float
    query: str = ""
    verb: str = ""
    access_key: str = ""
    error: str | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    user_agent: str = ""


class AccessLog:
    """Formats lines and hands them over whole, newline included, to `write`, which must not block."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._encoder = msgspec.json.Encoder()

    def write(
        self,
        *,
        time_ns: int,
        request_id: str,
        remote: str,
        access_key: str,
        verb: str,
        method: str,
        path: str,
        query: str,
        status: int,
        error: str | None,
        received_bytes: int,
        sent_bytes: int,
        seconds: float,
        user_agent: str,
    ) -> None:
        """Log one request. `path` and `query` are as sent; sizes are of bodies, in bytes as they went over the wire."""
        line = _Line(
            iso_date(time_ns),
            request_id,
            remote,
            method,
            path[:_TEXT_MAX_CHARS],
            status,
            round(seconds, 6),
            redact(query)[:_TEXT_MAX_CHARS] if query else "",
            verb,
            access_key,
            error,
            received_bytes,
            sent_bytes,
            user_agent[:_TEXT_MAX_CHARS],
        )
        self._write(self._encoder.encode(line) + b"\n")


def redact(query: str) -> str:
    """A raw query with the values of signature parameters taken out."""
    if not query or ("ignature" not in query and "mz-" not in query and "MZ-" not in query and "%" not in query):
        return query
    return _SECRET.sub(r"\1-", query)
