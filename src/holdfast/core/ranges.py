"""Half-open ranges, of bytes in an object and of keys in the metadata."""

import re

from msgspec import Struct

from holdfast.core.errors import InvalidRequest


class ByteRange(Struct, frozen=True):
    """Bytes `start` to `end`, `end` not included. Never empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise InvalidRequest(f"not a range: {self.start} to {self.end}")

    @property
    def length(self) -> int:
        return self.end - self.start


_RANGE = re.compile(r"bytes=(\d{0,19})-(\d{0,19})", re.ASCII)


def parse_range(text: str, size: int) -> ByteRange | None:
    """What a Range header of HTTP asks for of so many bytes; None when it is to be as if it were not there.

    That is so of a header that is not one range of bytes: several at once are answered whole. Raises InvalidRequest
    when nothing of the range is there (416). RFC 9110, section 14.
    """
    match = _RANGE.fullmatch(text.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        start, end = size - min(int(last), size), size
    else:
        start = int(first)
        end = min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise InvalidRequest(f"no byte of {text.strip()} is there, of {size}")
    return ByteRange(start, end)


class KeyRange(Struct, frozen=True):
    """Row keys from `start`, included, to `end`, not included. `end` None is the end of the map."""

    start: bytes = b""
    end: bytes | None = None

    def __contains__(self, key: bytes) -> bool:
        return self.start <= key and (self.end is None or key < self.end)


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key above every key that starts with `prefix`; None when there is none (b"", b"\\xff")."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def prefix_range(prefix: bytes) -> KeyRange:
    """Every key that starts with `prefix`."""
    return KeyRange(prefix, prefix_end(prefix))
