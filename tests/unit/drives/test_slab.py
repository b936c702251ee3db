"""What goes through a slab comes out whole, in aligned pieces."""

import ctypes
import shutil

from hypothesis import given
from hypothesis import strategies as st

from holdfast.core.limits import KIB
from holdfast.drives.records import PAGE_BYTES
from holdfast.drives.slab import SLAB_BYTES, Slab
from holdfast.testing.drive_suite import make_fragment
from tests.unit.drives.opened import Opened

SLAB = Slab(2 * PAGE_BYTES)


@given(st.lists(st.integers(0, 5 * PAGE_BYTES), max_size=8))
def test_pieces_are_the_buffers_one_after_the_other(lengths: list[int]) -> None:
    buffers = [bytes([number + 1]) * length for number, length in enumerate(lengths)]
    pieces = [bytes(piece) for piece in SLAB.pieces(buffers)]
    assert b"".join(pieces) == b"".join(buffers)
    # All but the last are whole slabs: as few writes as can be, and each begins on a page.
    assert all(len(piece) == 2 * PAGE_BYTES for piece in pieces[:-1])
    assert all(pieces)


def test_pieces_lie_on_pages() -> None:
    (piece,) = SLAB.pieces([b"a" * 10])
    assert ctypes.addressof(ctypes.c_char.from_buffer(piece)) % PAGE_BYTES == 0


def test_no_buffers_make_no_piece() -> None:
    assert list(SLAB.pieces([])) == []


async def test_a_commit_of_several_slabs_is_read_back_and_found_again(opened: Opened) -> None:
    """Its records lie across the ends of slabs, and an index made anew from the segment finds each."""
    fragments = [make_fragment(number, 700 * KIB) for number in range(5)]
    assert sum(len(fragment.payload) for fragment in fragments) > SLAB_BYTES
    drive = await opened.open()
    await drive.put(fragments)
    for again in (False, True):
        if again:
            await opened.close()
            shutil.rmtree(opened.path / "index")
            drive = await opened.open()
        for fragment in fragments:
            assert bytes((await drive.get(fragment.key)).data) == fragment.payload
