"""A batch: the commits that one holder of the store's lock makes durable with one record."""

from collections.abc import Sequence

from msgspec import Struct

from holdfast.core.errors import Full, HoldfastError, PreconditionFailed
from holdfast.meta.interface import Expectation
from holdfast.meta.local.log import LoggedChange
from holdfast.meta.local.view import Transaction, View


class Commit(Struct, frozen=True):
    """One commit, as the committer takes it in hand."""

    token: bytes
    changes: Sequence[LoggedChange]
    expecting: Sequence[Expectation]


Outcome = HoldfastError | None
"""Why a commit was refused; None when it is durable."""


def check_and_apply(
    view: View, transaction: Transaction, batch: Sequence[Commit], *, tight: bool
) -> tuple[list[Outcome], list[Commit]]:
    """Apply, one after the other, the commits whose expectations hold; each sees those before it.

    Returns what becomes of each if the batch is made durable, and those that change something. When space is `tight`,
    only commits that do not let the map grow are taken.
    """
    outcomes: list[Outcome] = []
    accepted: list[Commit] = []
    for commit in batch:
        failed = view.first_failure(transaction, commit.expecting) if commit.expecting else None
        if failed is not None:
            outcomes.append(PreconditionFailed(failed=(failed,)))
            continue
        if tight and view.would_grow(transaction, commit.changes):
            outcomes.append(Full("no room for more metadata; deleting goes on"))
            continue
        outcomes.append(None)
        if commit.changes:
            view.apply(transaction, commit.token, commit.changes)
            accepted.append(commit)
    return outcomes, accepted
