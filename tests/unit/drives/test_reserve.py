"""Space put aside: it gives way by halves, and comes back."""

from pathlib import Path

import pytest

from holdfast.core.limits import KIB, MIB
from holdfast.drives.os_disk import OsDisk
from holdfast.drives.reserve import RESERVE_NAME, Reserve


@pytest.fixture
def reserve(tmp_path: Path) -> Reserve:
    return Reserve(OsDisk(), tmp_path, MIB, 0)


def test_it_gives_way_by_halves_and_is_filled_up_again(reserve: Reserve) -> None:
    assert reserve.refill()
    sizes = [reserve.size()]
    while reserve.release():
        sizes.append(reserve.size())
    assert sizes == [MIB, 512 * KIB, 256 * KIB, 0]
    assert reserve.refill()
    assert reserve.size() == MIB


def test_one_that_was_deleted_has_nothing_to_give(reserve: Reserve, tmp_path: Path) -> None:
    assert reserve.refill()
    (tmp_path / RESERVE_NAME).unlink()
    assert not reserve.release()
    assert reserve.refill()
