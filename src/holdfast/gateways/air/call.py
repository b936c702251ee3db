"""A call: one request with what it names taken apart, and the answer to it."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field

import msgspec

from holdfast.asgi.body import Body
from holdfast.asgi.messages import Header
from holdfast.core.clock import Clock
from holdfast.core.ids import Buffer
from holdfast.gateways.air.errors import AirError
from holdfast.objects.store import Store

JSON_TYPE: Header = (b"content-type", b"application/json")

SUCCESS = "success"

# Where time stands still, as in tests, a speed is still a number.
_SECONDS_MIN = 1e-6

# Numbers count up by one; nobody writes more digits than these.
_VERSION_MAX_DIGITS = 18


@dataclass(slots=True)
class Answer:
    """Status, headers, and a body: whole, or with a stream that follows it."""

    status: int
    headers: list[Header] = field(default_factory=list)
    body: bytes = b""
    stream: AsyncGenerator[Buffer, None] | None = None
    """Closed once it has been sent or given up."""
    length: int | None = None
    """Of all of the body; None is that of `body`, or with a stream that nobody knows it."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was routed to a verb and may be served."""

    store: Store
    clock: Clock
    started: float
    """`clock.monotonic()` when the request came."""
    method: str
    bucket: str
    name: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body

    def seconds(self) -> float:
        """Since the request came."""
        return self.clock.monotonic() - self.started


def json_answer(status: int, document: object, headers: tuple[Header, ...] = ()) -> Answer:
    return Answer(status, [JSON_TYPE, *headers], msgspec.json.encode(document))


def speed(size: int, seconds: float) -> str:
    """Megabits in a second, as `speed` says it."""
    return f"{size * 8 / 1e6 / max(seconds, _SECONDS_MIN):.3f} Mbps"


def version(call: Call) -> int | None:
    """The number that the query names; None for the newest. Raises AirError."""
    text = call.query.get("version")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _VERSION_MAX_DIGITS):
        raise AirError(400, "version must be a number")
    return int(text)
