"""The map in memory: for tests and the simulator. Nothing survives the process.

Rules. One event loop. Every call takes effect without an await in between, so it is linearizable by construction;
then it yields once, so that racing tasks interleave between calls as they would over a real engine.

Keys are kept in one sorted list: an insertion moves pointers, 8 bytes a key, which for the sizes of tests (below a
million rows) is cheaper than any tree in Python.
"""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Sequence

from holdfast.core.errors import NotFound, PreconditionFailed, Unavailable
from holdfast.core.ids import Token
from holdfast.core.ranges import KeyRange, prefix_end
from holdfast.meta.interface import (
    Change,
    Expectation,
    Fold,
    Folded,
    HasToken,
    IsAbsent,
    IsEmpty,
    Page,
    Put,
    Row,
)
from holdfast.meta.limits import check_commit, check_key, check_scan


class MemoryMeta:
    """`Meta` over a dict and a sorted list of its keys."""

    def __init__(self) -> None:
        self._rows: dict[bytes, Row] = {}
        self._keys: list[bytes] = []
        self._closed = False

    async def get(self, key: bytes) -> Row:
        check_key(key)
        [row] = await self.get_many((key,))
        if row is None:
            raise NotFound("no such row")
        return row

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        self._check_open()
        rows = [self._rows.get(key) for key in keys]
        await asyncio.sleep(0)
        return rows

    async def scan(self, range: KeyRange, *, limit: int, fold: Fold | None = None, values: bool = True) -> Page:
        self._check_open()
        check_scan(limit, fold)
        page = self._page(range, limit, fold, values)
        await asyncio.sleep(0)
        return page

    async def commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        self._check_open()
        check_commit(changes, expecting, token)
        await asyncio.sleep(0)
        for position, expectation in enumerate(expecting):
            if not self._holds(expectation):
                raise PreconditionFailed(failed=(position,))
        for change in changes:
            self._apply(change, token)

    async def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the metadata is closed")

    def _page(self, range: KeyRange, limit: int, fold: Fold | None, values: bool) -> Page:
        entries: list[Row | Folded] = []
        at = bisect_left(self._keys, range.start)
        while at < len(self._keys):
            key = self._keys[at]
            if range.end is not None and key >= range.end:
                break
            if len(entries) == limit:
                return Page(tuple(entries), key)
            found = key.find(fold.delimiter, fold.skip) if fold is not None else -1
            if fold is not None and found >= 0:
                prefix = key[: found + len(fold.delimiter)]
                entries.append(Folded(prefix))
                behind = prefix_end(prefix)
                at = len(self._keys) if behind is None else bisect_left(self._keys, behind, at)
            else:
                row = self._rows[key]
                entries.append(row if values else Row(key, row.token, b""))
                at += 1
        return Page(tuple(entries), None)

    def _holds(self, expectation: Expectation) -> bool:
        match expectation:
            case HasToken(key, token):
                row = self._rows.get(key)
                return row is not None and row.token == token
            case IsAbsent(key):
                return key not in self._rows
            case IsEmpty(range):
                at = bisect_left(self._keys, range.start)
                return at == len(self._keys) or self._keys[at] not in range

    def _apply(self, change: Change, token: Token) -> None:
        key = change.key
        if isinstance(change, Put):
            if key not in self._rows:
                insort(self._keys, key)
            self._rows[key] = Row(key, token, bytes(change.value))
        elif self._rows.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]
