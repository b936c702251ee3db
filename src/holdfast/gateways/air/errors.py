"""What air answers when a call cannot be served: honest statuses, and a sentence in JSON.

Messages of our own errors are not shown for what is our fault (5xx): they may name drives and paths.
"""

from collections.abc import Mapping

from holdfast.asgi.errors import SenderSilent
from holdfast.asgi.messages import Header
from holdfast.core import errors as core
from holdfast.objects import errors as objects


class AirError(Exception):
    """An answer other than success."""

    def __init__(self, status: int, message: str, headers: tuple[Header, ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


# Status, and the message to show; "" shows the error's own.
_MAPPED: Mapping[type[core.HoldfastError], tuple[int, str]] = {
    core.HoldfastError: (500, "internal error"),
    core.NotFound: (404, ""),
    core.AlreadyExists: (409, ""),
    core.PreconditionFailed: (412, ""),
    core.InvalidName: (400, ""),
    core.InvalidRequest: (400, ""),
    objects.KeyTooLong: (414, ""),
    core.QuotaExceeded: (403, ""),
    core.AccessDenied: (403, ""),
    core.Corrupt: (500, "the stored data failed its checks and could not be rebuilt"),
    core.Unavailable: (503, "not now: try again later"),
    SenderSilent: (408, ""),
    core.Full: (507, "there is no space left; reads, listings and deletions still work"),
    core.Ambiguous: (500, "the outcome is not known: look before you try again"),
    core.ProtocolError: (500, "internal error"),
}

_RETRY_AFTER: Header = (b"retry-after", b"1")


def from_holdfast(error: core.HoldfastError) -> AirError:
    """The answer for one of ours, by the closest class in its ancestry."""
    for cls in type(error).__mro__:
        mapped = _MAPPED.get(cls)
        if mapped is not None:
            status, message = mapped
            return AirError(status, message or str(error), (_RETRY_AFTER,) if status == 503 else ())
    raise AssertionError(type(error))  # HoldfastError itself is in the map
