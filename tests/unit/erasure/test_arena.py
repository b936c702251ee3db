"""Pooled buffers: used again only when nobody holds a view."""

import threading

from holdfast.core.limits import MIB
from holdfast.erasure.arena import Arena


def test_a_buffer_is_not_handed_out_while_any_view_of_it_lives() -> None:
    arena = Arena()
    first = arena.take(MIB)
    piece = first[10:20]
    piece[:] = b"0123456789"
    del first
    second = arena.take(MIB)
    second[:] = bytes(MIB)
    assert bytes(piece) == b"0123456789"
    assert second.obj is not piece.obj


def test_a_buffer_comes_back_when_its_last_view_is_gone() -> None:
    arena = Arena()
    view = arena.take(MIB)
    mapping = id(view.obj)
    del view
    assert id(arena.take(MIB - 5).obj) == mapping
    assert arena.kept_bytes() == MIB


def test_idle_buffers_of_other_sizes_make_room_and_busy_ones_do_not() -> None:
    arena = Arena(kept_max_bytes=2 * MIB)
    busy = arena.take(MIB)
    arena.take(MIB // 2)
    for _ in range(3):
        arena.take(MIB + MIB // 4)
    assert arena.kept_bytes() <= 2 * MIB
    busy[:1] = b"x"
    beyond = [arena.take(MIB) for _ in range(5)]
    assert arena.kept_bytes() <= 2 * MIB
    assert len({id(view.obj) for view in [busy, *beyond]}) == 6


def test_threads_never_share_a_buffer() -> None:
    arena = Arena()
    wrong: list[int] = []

    def work(mine: int) -> None:
        for _ in range(300):
            view = arena.take(4096)
            view[:4096] = bytes([mine]) * 4096
            if bytes(view) != bytes([mine]) * 4096:
                wrong.append(mine)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert arena.kept_bytes() <= 8 * 256 * 1024
