"""What every engine refuses before it begins: the limits of `core.limits`, applied to one call.

An engine that let an overlong key in would fail later, in the middle of a commit, or on another engine's import.
"""

from collections.abc import Sequence

from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import RANDOM_ID_BYTES, Token
from holdfast.core.limits import COMMIT_CHANGES_MAX_COUNT, ROW_KEY_MAX_BYTES, ROW_VALUE_MAX_BYTES
from holdfast.meta.interface import Change, Expectation, Fold, IsEmpty, Put

# A commit's rows are held in memory several times over (caller, record, view) and written to each mirror at once.
# Sixteen of the largest rows, or 16,384 rows of 2 KiB.
COMMIT_MAX_BYTES = 16 * ROW_VALUE_MAX_BYTES

# How long a drive may take for one call before it counts as lost. Longer than a disk tries to read a bad sector (7 s
# where that is bounded) and than a write waits behind what a busy disk has queued; short enough that a commit is
# answered, after one such wait, before clients give up (60 s is usual).
DRIVE_SUSPECT_SECONDS = 15.0

# As much for upkeep, for which nobody waits, and which syncs checkpoints of gigabytes at once.
UPKEEP_SUSPECT_SECONDS = 120.0


def check_key(key: bytes) -> None:
    """Raises InvalidRequest unless `key` may name a row: 1 to ROW_KEY_MAX_BYTES bytes."""
    if not 0 < len(key) <= ROW_KEY_MAX_BYTES:
        raise InvalidRequest(f"a row's key is 1 to {ROW_KEY_MAX_BYTES} bytes long, not {len(key)}")


def check_scan(limit: int, fold: Fold | None) -> None:
    """Raises InvalidRequest unless a scan with these makes progress."""
    if limit < 1:
        raise InvalidRequest(f"a scan returns at least one entry, not {limit}")
    if fold is not None and (not fold.delimiter or fold.skip < 0):
        raise InvalidRequest("a fold needs a delimiter, and a skip that is not negative")


def check_commit(changes: Sequence[Change], expecting: Sequence[Expectation], token: Token) -> int:
    """Raises InvalidRequest unless the commit is within every limit. Returns the bytes of its keys and values."""
    if len(token) != RANDOM_ID_BYTES:
        raise InvalidRequest(f"a token is {RANDOM_ID_BYTES} bytes long, not {len(token)}")
    if len(changes) > COMMIT_CHANGES_MAX_COUNT or len(expecting) > COMMIT_CHANGES_MAX_COUNT:
        raise InvalidRequest(f"a commit has at most {COMMIT_CHANGES_MAX_COUNT} changes, and as many expectations")
    total = 0
    for change in changes:
        key = change.key
        if not 0 < len(key) <= ROW_KEY_MAX_BYTES:
            check_key(key)
        total += len(key)
        if isinstance(change, Put):
            if len(change.value) > ROW_VALUE_MAX_BYTES:
                raise InvalidRequest(f"a row's value is at most {ROW_VALUE_MAX_BYTES} bytes, not {len(change.value)}")
            total += len(change.value)
    if total > COMMIT_MAX_BYTES:
        raise InvalidRequest(f"a commit's keys and values are at most {COMMIT_MAX_BYTES} bytes, not {total}")
    for expectation in expecting:
        if not isinstance(expectation, IsEmpty):
            check_key(expectation.key)
    return total
