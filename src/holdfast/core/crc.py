"""CRC32C and CRC64NVME in the processor's own instructions, and CRCs of two pieces that lie one behind the other.

The library that has them takes a sixth of the time in which a command starts, and most commands need none of it: the
first use loads it. A large buffer is hashed without the GIL.
"""

from functools import cache
from importlib import import_module
from typing import Any

from holdfast.core.ids import Buffer


@cache
def _library() -> Any:
    return import_module("awscrt.checksums")


def crc32c(data: Buffer, value: int = 0) -> int:
    """The CRC32C (Castagnoli, RFC 3720) of what has `value`, with `data` behind it."""
    return int(_library().crc32c(data, value))


def crc64nvme(data: Buffer, value: int = 0) -> int:
    """The CRC64NVME (NVM Express, Rocksoft model) of what has `value`, with `data` behind it."""
    return int(_library().crc64nvme(data, value))


def combine_crc32(first: int, second: int, second_bytes: int) -> int:
    """The CRC32 of two pieces from those of each, and the length of the second."""
    return int(_library().combine_crc32(first, second, second_bytes))


def combine_crc32c(first: int, second: int, second_bytes: int) -> int:
    return int(_library().combine_crc32c(first, second, second_bytes))


def combine_crc64nvme(first: int, second: int, second_bytes: int) -> int:
    return int(_library().combine_crc64nvme(first, second, second_bytes))
