"""How a block is spread: so many copies, or k data and m parity fragments."""

from dataclasses import dataclass
from enum import StrEnum

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import BlockId
from holdfast.core.limits import COPIES_MAX_COUNT, FRAGMENTS_MAX_COUNT


class Matrix(StrEnum):
    """The generator matrix of an erasure code, or that there is none."""

    COPIES = "copies"
    CAUCHY = "cauchy"
    VANDERMONDE = "vandermonde"


@dataclass(frozen=True, slots=True)
class Code:
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

    @property
    def width(self) -> int:
        """Fragments in all, k+m."""
        return self.k + self.m

    @property
    def write_quorum(self) -> int:
        """Fragments on stable storage before a write is answered: one loss is survived from the first moment."""
        return min(self.width, self.k + 1)

    def __str__(self) -> str:
        return f"{self.width} copies" if self.matrix is Matrix.COPIES else f"{self.k}+{self.m}"


def copies(count: int) -> Code:
    return Code(Matrix.COPIES, 1, count - 1)


def erasure(k: int, m: int, matrix: Matrix = Matrix.CAUCHY) -> Code:
    return Code(matrix, k, m)


@dataclass(frozen=True, slots=True)
class BlockRef:
    """All that is needed to find and rebuild a sealed block, and nothing that helps to read it."""

    id: BlockId
    code: Code
    length: int
    """Bytes of the sealed block."""
