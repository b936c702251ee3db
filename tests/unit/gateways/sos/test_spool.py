"""Spools: bytes come out as they went in, with their SHA-1, from memory or from a file that has no name."""

import hashlib
from pathlib import Path
from random import Random

import pytest

from holdfast.core.errors import Full
from holdfast.core.limits import MIB
from holdfast.gateways.sos.spool import MEMORY_MAX_BYTES, Spool
from holdfast.testing.blob_suite import pieces


def left_in(directory: Path) -> list[Path]:
    return list(directory.iterdir())


@pytest.mark.parametrize("size", [0, 1, 40_000, MEMORY_MAX_BYTES, MEMORY_MAX_BYTES + 1, 3 * MIB + 5])
async def test_what_goes_in_comes_out(tmp_path: Path, size: int) -> None:
    data = Random(size).randbytes(size)
    also = hashlib.sha1(b"before")
    spool = Spool(tmp_path, also)
    async for piece in pieces(data):
        await spool.write(piece)
    await spool.finish()
    assert (spool.size, spool.sha1) == (size, hashlib.sha1(data).hexdigest())
    assert also.hexdigest() == hashlib.sha1(b"before" + data).hexdigest()
    assert (spool.whole() is None) == (size > MEMORY_MAX_BYTES)
    for _ in range(2):
        whole = spool.whole()
        assert data == (whole if whole is not None else b"".join([piece async for piece in spool.read()]))
    assert left_in(tmp_path) == []
    spool.close()
    spool.close()


async def test_a_directory_that_takes_nothing_is_full(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "missing")
    await spool.write(bytes(MEMORY_MAX_BYTES))
    with pytest.raises(Full):
        await spool.write(b"x")
