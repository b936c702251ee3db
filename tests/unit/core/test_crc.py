"""CRCs against the check values of their specifications, and against themselves in pieces."""

import subprocess
import sys
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.core import crc

CHECK = b"123456789"

PIECEWISE = [
    (lambda data, value=0: zlib.crc32(data, value), crc.combine_crc32),
    (crc.crc32c, crc.combine_crc32c),
    (crc.crc64nvme, crc.combine_crc64nvme),
]


def test_check_values() -> None:
    """Of the catalogue of parametrised CRC algorithms: CRC-32/ISCSI and CRC-64/NVME."""
    assert crc.crc32c(CHECK) == 0xE3069283
    assert crc.crc64nvme(CHECK) == 0xAE8B14860A799888
    assert crc.crc32c(memoryview(bytearray(CHECK))) == 0xE3069283


@pytest.mark.parametrize(("whole", "combine"), PIECEWISE)
@given(first=st.binary(max_size=300), second=st.binary(max_size=300))
def test_in_pieces(
    whole: Callable[..., int], combine: Callable[[int, int, int], int], first: bytes, second: bytes
) -> None:
    assert whole(second, whole(first)) == whole(first + second)
    assert combine(whole(first), whole(second), len(second)) == whole(first + second)


def test_nothing_is_loaded_that_nobody_uses() -> None:
    code = "import sys, holdfast.cli.main, holdfast.cli.status; sys.exit('awscrt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
