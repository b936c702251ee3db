"""Which codes exist: exactly those that survive every loss of m fragments."""

import itertools

import pytest

from holdfast.core.errors import InvalidRequest
from holdfast.core.limits import FRAGMENTS_MAX_COUNT
from holdfast.erasure.code import VANDERMONDE_K_MAX, Code, Matrix, copies, erasure
from tests.unit.erasure.reference import inverse, multiply, parity_rows

PRODUCT = [[multiply(a, b) for b in range(256)] for a in range(256)]
INVERSE = [0, *(inverse(a) for a in range(1, 256))]


def is_singular(square: list[list[int]]) -> bool:
    size = len(square)
    for column in range(size):
        pivot = next((r for r in range(column, size) if square[r][column]), None)
        if pivot is None:
            return True
        square[column], square[pivot] = square[pivot], square[column]
        for r in range(column + 1, size):
            if square[r][column]:
                factor = PRODUCT[INVERSE[square[column][column]]][square[r][column]]
                square[r] = [x ^ PRODUCT[factor][y] for x, y in zip(square[r], square[column], strict=True)]
    return False


def singular_submatrix(rows: list[list[int]], k: int) -> tuple[object, object] | None:
    """A square submatrix of the parity rows that has no inverse and holds the last column, if there is one."""
    for size in range(1, min(k, len(rows)) + 1):
        for some in itertools.combinations(range(k - 1), size - 1):
            columns = (*some, k - 1)
            for chosen in itertools.combinations(rows, size):
                if is_singular([[row[c] for c in columns] for row in chosen]):
                    return columns, chosen
    return None


@pytest.mark.parametrize("m", range(1, FRAGMENTS_MAX_COUNT))
def test_the_vandermonde_bound_is_safe_and_is_the_largest(m: int) -> None:
    """Every square submatrix of [V] within the bound has an inverse, which is what "any m losses" means.

    A submatrix without column k-1 belongs to a smaller k, so a bound that never rises with m covers them all.
    """
    bound = VANDERMONDE_K_MAX[m]
    rows = parity_rows("vandermonde", FRAGMENTS_MAX_COUNT, m)
    for k in range(1, bound + 1):
        assert singular_submatrix(rows, k) is None
    if bound + 1 + m <= FRAGMENTS_MAX_COUNT and bound + 1 <= VANDERMONDE_K_MAX.get(m - 1, 0):
        assert singular_submatrix(rows, bound + 1) is not None


def test_the_bound_never_rises_with_m() -> None:
    bounds = [VANDERMONDE_K_MAX[m] for m in range(1, FRAGMENTS_MAX_COUNT)]
    assert bounds == sorted(bounds, reverse=True)


@pytest.mark.parametrize(("k", "m"), [(22, 4), (6, 5), (5, 6), (31, 2), (20, 12)])
def test_other_vandermonde_codes_are_refused(k: int, m: int) -> None:
    with pytest.raises(InvalidRequest):
        erasure(k, m, Matrix.VANDERMONDE)


@pytest.mark.parametrize(
    ("matrix", "k", "m"), [("copies", 2, 1), ("copies", 1, 7), ("cauchy", 0, 1), ("cauchy", 30, 3)]
)
def test_impossible_codes_are_refused(matrix: str, k: int, m: int) -> None:
    with pytest.raises(InvalidRequest):
        Code(Matrix(matrix), k, m)


def test_width_and_quorum() -> None:
    assert (erasure(4, 2).width, erasure(4, 2).write_quorum) == (6, 5)
    assert (erasure(4, 1).width, erasure(4, 1).write_quorum) == (5, 5)
    assert (copies(1).width, copies(1).write_quorum) == (1, 1)
    assert (copies(3).width, copies(3).write_quorum) == (3, 2)
    assert (str(copies(2)), str(erasure(4, 2))) == ("2 copies", "4+2")
