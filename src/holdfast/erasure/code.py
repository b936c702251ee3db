"""How a block is spread: so many copies, or k data and m parity fragments.

Rule: a `Code` that exists can lose any m of its fragments. The matrix [1/(i+j)] (Cauchy) has that property for every
k and m; the matrix of powers (Vandermonde) has it only within VANDERMONDE_K_MAX, and whatever lies outside is refused.
"""

from enum import StrEnum

from msgspec import Struct

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import BlockId
from holdfast.core.limits import COPIES_MAX_COUNT, FRAGMENTS_MAX_COUNT


class Matrix(StrEnum):
    """The generator matrix of an erasure code, or that there is none."""

    COPIES = "copies"
    CAUCHY = "cauchy"
    VANDERMONDE = "vandermonde"


# ISA-L's Vandermonde rows are (2**r)**j for parity row r and column j in GF(2**8): some of its square submatrices are
# singular, and then m losses are too many. The largest k for each m, found by trying every submatrix up to k+m = 32;
# tests/unit/erasure/test_code.py tries them again.
VANDERMONDE_K_MAX = {
    1: 31,
    2: 30,
    3: 29,
    4: 21,
    5: 5,
    **dict.fromkeys(range(6, 22), 4),
    **dict.fromkeys(range(22, 30), 3),
} | {
    30: 2,
    31: 1,
}


class Code(Struct, frozen=True):
    """k fragments rebuild a block of k+m; a copy is a code with k = 1 whose fragments are all the same."""

    matrix: Matrix
    k: int
    m: int

    def __post_init__(self) -> None:
        if self.matrix is Matrix.COPIES:
            if self.k != 1 or not 0 <= self.m < COPIES_MAX_COUNT:
                raise InvalidRequest(f"copies run from 1 to {COPIES_MAX_COUNT}, not {self.k}+{self.m}")
        elif self.k < 1 or self.m < 1 or self.k + self.m > FRAGMENTS_MAX_COUNT:
            raise InvalidRequest(f"an erasure code has k >= 1, m >= 1, k+m <= {FRAGMENTS_MAX_COUNT}, not {self}")
        elif self.matrix is Matrix.VANDERMONDE and self.k > VANDERMONDE_K_MAX[self.m]:
            raise InvalidRequest(
                f"a Vandermonde code with m = {self.m} needs k <= {VANDERMONDE_K_MAX[self.m]}, not {self}: "
                "it could not survive every loss; use cauchy"
            )

    @property
    def width(self) -> int:
        """Fragments in all, k+m."""
        return self.k + self.m

    @property
    def write_quorum(self) -> int:
        """Fragments on stable storage before a write is answered: one loss is survived from the first moment."""
        return min(self.width, self.k + 1)

    def __str__(self) -> str:
        if self.matrix is Matrix.COPIES:
            return "1 copy" if self.width == 1 else f"{self.width} copies"
        return f"{self.k}+{self.m}"


def copies(count: int) -> Code:
    return Code(Matrix.COPIES, 1, count - 1)


def erasure(k: int, m: int, matrix: Matrix = Matrix.CAUCHY) -> Code:
    return Code(matrix, k, m)


class BlockRef(Struct, frozen=True):
    """All that is needed to find and rebuild a sealed block, and nothing that helps to read it."""

    id: BlockId
    code: Code
    length: int
    """Bytes of the sealed block."""
