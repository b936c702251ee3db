"""The binding to ISA-L: its matrices, and that nothing of a wrong shape reaches C."""

import threading
import time

import pytest

from holdfast.erasure import isal
from tests.unit.erasure import reference
from tests.unit.erasure.sample import code

# A call takes some milliseconds.
TRIES_MAX_COUNT = 500


@pytest.mark.parametrize(("matrix", "k", "m"), [("cauchy", 4, 2), ("cauchy", 20, 12), ("vandermonde", 4, 9)])
def test_generator_matrices_are_those_of_the_reference(matrix: str, k: int, m: int) -> None:
    identity = [[int(i == j) for j in range(k)] for i in range(k)]
    rows = identity + reference.parity_rows(matrix, k, m)
    assert isal.generator(code(matrix, k, m)) == b"".join(bytes(row) for row in rows)


def test_pieces_of_unequal_length_are_our_bug() -> None:
    tables = isal.parity_tables(code("cauchy", 2, 1))
    good, short = bytes(64), bytes(63)
    with pytest.raises(AssertionError):
        isal.multiply(tables, [good, short], [bytearray(64)])
    with pytest.raises(AssertionError):
        isal.multiply(tables, [good, good], [bytearray(63)])
    with pytest.raises(AssertionError):
        isal.multiply(tables, [good], [bytearray(64)])


def test_targets_must_be_writable_and_whole() -> None:
    tables = isal.parity_tables(code("cauchy", 2, 1))
    with pytest.raises(BufferError):
        isal.multiply(tables, [bytes(64), bytes(64)], [bytes(64)])
    with pytest.raises(BufferError):
        isal.multiply(tables, [bytes(64), memoryview(bytes(128))[::2]], [bytearray(64)])


def test_buffers_are_released_after_the_call() -> None:
    target = bytearray(64)
    isal.multiply(isal.parity_tables(code("cauchy", 2, 1)), [bytes(64), bytes(64)], [target])
    target.append(0)  # BufferError while something still points into it


def test_the_gil_is_released() -> None:
    """While one thread multiplies, this one's longest pause is shorter than the call: it would be as long otherwise."""
    piece = bytes(2 * 1024 * 1024)
    tables, targets = isal.parity_tables(code("cauchy", 8, 8)), [bytearray(piece) for _ in range(8)]
    taken: list[float] = []

    def work() -> None:
        began = time.perf_counter()
        isal.multiply(tables, [piece] * 8, targets)
        taken.append(time.perf_counter() - began)

    # Other programs pause this thread too: one call out of many shows it.
    for _ in range(TRIES_MAX_COUNT):
        worker = threading.Thread(target=work)
        longest, last = 0.0, time.perf_counter()
        worker.start()
        while worker.is_alive():
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
        longest = max(longest, time.perf_counter() - last)
        worker.join()
        if longest < taken[-1] / 2:
            return
    pytest.fail("never without a pause as long as the call")
