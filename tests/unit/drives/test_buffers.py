"""The pool hands out aligned buffers, and gets them back when nobody looks at them."""

import ctypes

from holdfast.core.limits import KIB, MIB
from holdfast.drives.buffers import BufferPool


def address_of(buffer: object) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))  # type: ignore[arg-type]


def test_buffers_are_aligned_and_used_again() -> None:
    pool = BufferPool()
    first = pool.take(300 * KIB)
    assert len(first) == 512 * KIB
    assert address_of(first) % 4096 == 0
    pool.give(first)
    assert pool.take(400 * KIB) is first
    assert pool.take(400 * KIB) is not first


def test_a_lent_buffer_returns_with_its_last_view() -> None:
    pool = BufferPool()
    view = pool.lend(200 * KIB)
    assert len(view) == 200 * KIB
    address = address_of(view)
    slice_of_it = view[1000:2000]
    del view
    other = pool.lend(200 * KIB)
    assert address_of(other) != address
    slice_of_it[:] = b"x" * 1000
    del slice_of_it
    again = pool.lend(200 * KIB)
    assert address_of(again) == address


def test_small_ones_are_left_to_the_allocator() -> None:
    view = BufferPool().lend(100)
    assert bytes(view) == bytes(100)


def test_the_pool_keeps_no_more_than_told() -> None:
    pool = BufferPool(idle_max_bytes=MIB)
    buffers = [pool.take(MIB) for _ in range(3)]
    for buffer in buffers:
        pool.give(buffer)
    kept = [pool.take(MIB) for _ in range(3)]
    assert sum(any(buffer is other for other in buffers) for buffer in kept) == 1


def test_sizes_that_nobody_asks_for_any_more_make_room() -> None:
    pool = BufferPool(idle_max_bytes=MIB)
    large, small = pool.take(MIB), pool.take(256 * KIB)
    pool.give(large)
    pool.give(small)
    assert pool.take(256 * KIB) is small
    assert pool.take(MIB) is not large
