"""An ordered, transactional map of bytes to bytes: the one thing that every promise of the product stands on.

Guarantees, for every engine (`testing.meta_suite` holds them to it):

- Linearizable: `get`, `scan` (one page of it) and `commit` each take effect at one moment between call and return,
  seen in the same order by every process that has the map open.
- `commit` applies all of its changes or none, and only if every expectation holds at that moment.
- When `commit` returns, its changes are on stable storage as the engine's strictness says, and survive any crash.
- Tokens are random and chosen by the committer: whoever lost the reply reads the row again and sees whose it is.
  An engine settles that by itself where it can; where it cannot, it raises Ambiguous. It never guesses.
- A cancelled `commit` may or may not take effect, as a whole.
- Keys are ordered as bytes; every byte may occur in them, NUL included.
"""

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from holdfast.core.ids import Token
from holdfast.core.ranges import KeyRange


class Row(Struct, frozen=True):
    key: bytes
    token: Token
    value: bytes


class Folded(Struct, frozen=True):
    """Stands for every row whose key starts with `prefix`, which ends in the fold's delimiter."""

    prefix: bytes


class Fold(Struct, frozen=True):
    """Fold rows whose key holds `delimiter` behind its first `skip` bytes into one `Folded` entry each."""

    delimiter: bytes
    skip: int


class Page(Struct, frozen=True):
    """What a scan found, in key order."""

    entries: tuple[Row | Folded, ...]
    resume: bytes | None
    """Scan on from this key, included, to see what follows; None when the range is exhausted."""


class HasToken(Struct, frozen=True):
    """The row is there and carries this token."""

    key: bytes
    token: Token


class IsAbsent(Struct, frozen=True):
    """There is no such row."""

    key: bytes


class IsEmpty(Struct, frozen=True):
    """No row has a key in this range."""

    range: KeyRange


Expectation = HasToken | IsAbsent | IsEmpty


class Put(Struct, frozen=True):
    """Write a row, whether it is there or not."""

    key: bytes
    value: bytes


class Delete(Struct, frozen=True):
    """Remove a row; no error when it is not there."""

    key: bytes


Change = Put | Delete


class Meta(Protocol):
    """The map."""

    async def get(self, key: bytes) -> Row:
        """The row. Raises NotFound, Corrupt, Unavailable."""
        ...

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        """The rows, in the order of `keys`, all seen at one moment; None where there is none (a batch cannot raise)."""
        ...

    async def scan(self, range: KeyRange, *, limit: int, fold: Fold | None = None, values: bool = True) -> Page:
        """Rows of a range in key order, at most `limit` entries, a folded group counting as one.

        Costs what it returns: a folded group is skipped inside the engine. `limit` is at most 1,001 or so by
        convention; an engine may return fewer entries than asked together with a `resume`. With `values` False the
        rows' values come back empty, which an engine may find cheaper.
        """
        ...

    async def commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        """Apply `changes` in order, atomically, if every expectation holds; each row written gets `token`.

        Raises PreconditionFailed (with the positions of expectations that do not hold), InvalidRequest (a limit),
        Full (changes that only delete, or that shrink, are accepted on a full store), Ambiguous, Unavailable.
        """
        ...

    async def close(self) -> None:
        """Let commits in flight end, then release everything."""
        ...
