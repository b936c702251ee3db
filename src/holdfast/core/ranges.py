"""Half-open ranges, of bytes in an object and of keys in the metadata."""

from dataclasses import dataclass

from holdfast.core.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes `start` to `end`, `end` not included. Never empty."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end:
            raise InvalidRequest(f"not a range: {self.start} to {self.end}")

    @property
    def length(self) -> int:
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class KeyRange:
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
