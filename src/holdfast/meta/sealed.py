"""A wrapper that seals the values of every row: the engine underneath sees keys, tokens and lengths, nothing else.

Rules.

- Keys are not sealed: order needs them. A value is bound to its row's key; moved to another row it does not open.
- Rows under a plain prefix pass through untouched: the wrapped keyring's row, which holds the key of all others.
- What cannot be seen here: an engine that answers with an older value of the same row. Expectations on tokens, and
  the engine's own log, stand against that.
- A row of an epoch that is not in the keyring may mean that another process rotated it: the keyring is asked for
  once more, and only then is the row called Corrupt.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from holdfast.core.clock import Randomness
from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import Token
from holdfast.core.limits import KIB, MIB, ROW_VALUE_MAX_BYTES
from holdfast.core.ranges import KeyRange
from holdfast.crypto.envelope import OVERHEAD_BYTES, EnvelopeOpener, EnvelopeSealer, UnknownEpoch
from holdfast.crypto.keyring import Keyring, Purpose
from holdfast.meta.interface import Change, Expectation, Fold, Folded, Meta, Page, Put, Row

T = TypeVar("T", Folded, None)

VALUE_MAX_BYTES = ROW_VALUE_MAX_BYTES - OVERHEAD_BYTES
"""The longest value that fits a row once it is sealed."""

# The event loop is given back after this much work, about a millisecond of it.
_BYTES_PER_TURN = 1 * MIB

# What a row costs beside its bytes, in the same measure: sealing nothing takes as long as encrypting this.
_ROW_COST_BYTES = 4 * KIB


@dataclass(frozen=True, slots=True)
class RowKeys:
    """What seals and opens row values."""

    sealer: EnvelopeSealer
    opener: EnvelopeOpener

    @classmethod
    def of(cls, keyring: Keyring, randomness: Randomness) -> "RowKeys":
        return cls(keyring.sealer(Purpose.METADATA, randomness), keyring.opener(Purpose.METADATA))


class SealedMeta:
    """`Meta` over another, which it owns: `close` closes both."""

    def __init__(
        self,
        inner: Meta,
        keys: RowKeys,
        *,
        plain_prefixes: Iterable[bytes] = (),
        reload: Callable[[], Awaitable[RowKeys]] | None = None,
    ) -> None:
        """`reload` reads the keyring again; it is called when a row names an epoch that `keys` lack."""
        self._inner = inner
        self._keys = keys
        self._plain = tuple(plain_prefixes)
        self._reload = reload

    def use(self, keys: RowKeys) -> None:
        """Seal and open with these from now on: the keyring was rotated."""
        self._keys = keys

    async def get(self, key: bytes) -> Row:
        row = await self._inner.get(key)
        try:
            return self._opened(row)
        except UnknownEpoch:
            await self._renew_keys()
            return self._opened(row)

    async def get_many(self, keys: Sequence[bytes]) -> list[Row | None]:
        return await self._open_each(await self._inner.get_many(keys))

    async def scan(self, range: KeyRange, *, limit: int, fold: Fold | None = None, values: bool = True) -> Page:
        page = await self._inner.scan(range, limit=limit, fold=fold, values=values)
        return Page(tuple(await self._open_each(page.entries)), page.resume) if values else page

    async def commit(self, changes: Sequence[Change], expecting: Sequence[Expectation] = (), *, token: Token) -> None:
        turn = _Turn()
        sealed: list[Change] = []
        for change in changes:
            if isinstance(change, Put) and not change.key.startswith(self._plain):
                if len(change.value) > VALUE_MAX_BYTES:
                    raise InvalidRequest(f"a row's value is at most {VALUE_MAX_BYTES} bytes, not {len(change.value)}")
                if turn.is_over(len(change.value)):
                    await asyncio.sleep(0)
                change = Put(change.key, self._keys.sealer.seal(change.value, change.key))
            sealed.append(change)
        await self._inner.commit(sealed, expecting, token=token)

    async def close(self) -> None:
        await self._inner.close()

    async def _open_each(self, found: Iterable[Row | T]) -> list[Row | T]:
        """Rows opened, whatever else is among them as it is. A loop without awaits: a page has a thousand rows."""
        turn = _Turn()
        opened: list[Row | T] = []
        for entry in found:
            if isinstance(entry, Row):
                if turn.is_over(len(entry.value)):
                    await asyncio.sleep(0)
                try:
                    entry = self._opened(entry)
                except UnknownEpoch:
                    await self._renew_keys()
                    entry = self._opened(entry)
            opened.append(entry)
        return opened

    def _opened(self, row: Row) -> Row:
        if row.key.startswith(self._plain):
            return row
        return Row(row.key, row.token, self._keys.opener.open(row.value, row.key))

    async def _renew_keys(self) -> None:
        if self._reload is not None:
            self._keys = await self._reload()


class _Turn:
    """Counts work since the event loop last ran something else."""

    __slots__ = ("_spent",)

    def __init__(self) -> None:
        self._spent = 0

    def is_over(self, count: int) -> bool:
        """Note `count` bytes more; whether to give way first."""
        self._spent += count + _ROW_COST_BYTES
        if self._spent < _BYTES_PER_TURN:
            return False
        self._spent = 0
        return True
