"""The fence on each drive: one run passes, another does not, and bytes that are no mark keep nobody out."""

from pathlib import Path

import pytest

from holdfast.core.errors import Unavailable
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.local.fence import FILE_NAME, raise_fence

ONE, OTHER = b"run one---------", b"run other-------"


def test_one_run_shares_and_another_is_refused(tmp_path: Path) -> None:
    held = raise_fence(OsDisk(), tmp_path, ONE)
    shared = raise_fence(OsDisk(), tmp_path, ONE)
    assert held is not None
    assert shared is not None
    with pytest.raises(Unavailable, match="another run directory"):
        raise_fence(OsDisk(), tmp_path, OTHER)
    held.close()
    shared.close()
    assert raise_fence(OsDisk(), tmp_path, OTHER) is not None


def test_an_overwritten_fence_keeps_nobody_out(tmp_path: Path) -> None:
    held = raise_fence(OsDisk(), tmp_path, ONE)
    path = tmp_path / FILE_NAME
    path.write_bytes(b"\x5a" * path.stat().st_size)
    assert raise_fence(OsDisk(), tmp_path, ONE) is not None
    assert held is not None


def test_a_missing_drive_has_no_fence(tmp_path: Path) -> None:
    assert raise_fence(OsDisk(), tmp_path / "pulled", ONE) is None
