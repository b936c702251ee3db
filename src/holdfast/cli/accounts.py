"""S3 key pairs: rows in the metadata, and the copy of them that each process checks signatures against.

Rules. One enabled key is root; it is set when the store is served, and no command here takes it away. Each change of a
key changes the row that stands for all of them in the same commit, so a process learns with one small read that its
copy is old. A copy that could not be compared for STALE_SECONDS serves nobody: a revocation that the process cannot
see must hold all the same.
"""

import asyncio
import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import HoldfastError, InvalidName, InvalidRequest, NotFound, PreconditionFailed, Unavailable
from holdfast.core.ids import new_token
from holdfast.core.ranges import KeyRange, prefix_end
from holdfast.meta.interface import Change, Delete, Expectation, HasToken, IsAbsent, Meta, Put, Row
from holdfast.objects.access import ROOT, Access, Permissions, decode_grants, encode_grants
from holdfast.objects.rows import ACCESS_KEYS, AccessKeyRow, AccessKeysRow, access_key_row_key

# A key that was disabled must be refused everywhere within so long. What follows stays below, together.
REVOKED_SECONDS = 5.0
REFRESH_SECONDS = 1.0
STALE_SECONDS = 3.0
READ_TIMEOUT_SECONDS = 1.0

LABEL_MAX_CHARS = 200
"""What fits a line of `key list`."""

# As AWS draws them: 20 characters that begin with AKIA are an access key, 40 a secret.
_ACCESS_KEY_RANDOM_BYTES = 10
_SECRET_RANDOM_BYTES = 30
_ACCESS_KEY_MAX_CHARS = 128

_PAGE_COUNT = 1000
_Change = Callable[[AccessKeyRow], AccessKeyRow]
_ATTEMPTS_MAX_COUNT = 16


@dataclass(frozen=True, slots=True)
class Account:
    """One key, as it is listed: without its secret."""

    access_key: str
    label: str
    enabled: bool
    created_ns: int
    access: Access


class Accounts:
    """The `A` rows; implements the S3 gateway's `Credentials`."""

    def __init__(self, meta: Meta, clock: Clock, randomness: Randomness) -> None:
        self._meta = meta
        self._clock = clock
        self._randomness = randomness
        self._known: dict[str, tuple[str, Access]] = {}
        self._generation: bytes | None = None
        self._compared = 0.0
        self._stale = True
        self._refreshing: asyncio.Task[None] | None = None

    # What requests are checked against: this process's copy

    def secret(self, access_key: str) -> str:
        """The secret of an enabled key. Raises NotFound, Unavailable."""
        return self._find(access_key)[0]

    def access(self, access_key: str) -> Access:
        """What an enabled key may do. Raises NotFound, Unavailable."""
        return self._find(access_key)[1]

    def _find(self, access_key: str) -> tuple[str, Access]:
        if self._clock.monotonic() - self._compared >= REVOKED_SECONDS:
            # This process was stopped, say, and goes on with a request before it has read anything.
            raise Unavailable("the access keys were not read for too long")
        try:
            return self._known[access_key]
        except KeyError:
            if self._stale:
                raise Unavailable("the access keys cannot be read") from None
            raise NotFound("no such access key") from None

    async def start(self) -> None:
        """Read the keys, and go on reading them."""
        await self._refresh()
        self._refreshing = asyncio.create_task(self._keep_fresh(), name="access keys")

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def _keep_fresh(self) -> None:
        while True:
            await self._clock.sleep(REFRESH_SECONDS)
            try:
                async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                    await self._refresh()
            except (HoldfastError, TimeoutError):
                if self._clock.monotonic() - self._compared >= STALE_SECONDS:
                    self._known, self._generation, self._stale = {}, None, True

    async def _refresh(self) -> None:
        """Read the keys again if any of them changed."""
        began = self._clock.monotonic()
        # Read first: what changes behind it is seen the next time.
        (marker,) = await self._meta.get_many([ACCESS_KEYS])
        generation = marker.token if marker is not None else None
        if self._stale or generation is None or generation != self._generation:
            rows = await self._rows()
            self._known = {name: (row.secret, access_of(row)) for name, (row, _) in rows.items() if row.enabled}
            self._generation = generation
        self._compared, self._stale = began, False

    # What commands do

    async def root(self) -> tuple[str, str]:
        """The root key pair. Raises NotFound in a store that is being made."""
        for access_key, (row, _) in (await self._rows()).items():
            if row.root and row.enabled:
                return access_key, row.secret
        raise NotFound("the store has no root key")

    async def ensure_root(self, given: tuple[str, str] | None) -> tuple[str, str]:
        """Make `given` the root key pair, or keep the one there is, or draw one."""
        rows = await self._rows()
        present = [(access_key, row.secret) for access_key, (row, _) in rows.items() if row.root and row.enabled]
        if given is None and present:
            return present[0]
        if given is not None and present == [given]:
            return given
        access_key, secret = given or self._draw()
        _check(access_key, secret)
        changes: list[Change] = [
            Put(access_key_row_key(old), msgspec.structs.replace(rows[old][0], enabled=False).encode())
            for old, _ in present
            if old != access_key
        ]
        row = AccessKeyRow(AccessKeyRow.SHAPE, secret, True, True, self._clock.now_ns())
        changes.append(Put(access_key_row_key(access_key), row.encode()))
        expecting: list[Expectation] = [HasToken(access_key_row_key(old), rows[old][1].token) for old, _ in present]
        if access_key not in rows:
            expecting.append(IsAbsent(access_key_row_key(access_key)))
        if not await self._commit(changes, expecting):
            return await self.ensure_root(given)
        return access_key, secret

    async def all(self) -> list[Account]:
        """All keys, in the order of their names."""
        return [
            Account(access_key, row.label, row.enabled, row.created_ns, access_of(row))
            for access_key, (row, _) in (await self._rows()).items()
        ]

    async def create(self, label: str, grants: Mapping[str, Permissions]) -> tuple[str, str]:
        """A new key pair: this is the one time that its secret is told. Raises InvalidName."""
        if len(label) > LABEL_MAX_CHARS or not label.isprintable():
            raise InvalidName(f"a label has at most {LABEL_MAX_CHARS} printable characters")
        while True:
            access_key, secret = self._draw()
            key, now_ns = access_key_row_key(access_key), self._clock.now_ns()
            row = AccessKeyRow(AccessKeyRow.SHAPE, secret, False, True, now_ns, label, encode_grants(grants))
            if await self._commit([Put(key, row.encode())], [IsAbsent(key)]):
                return access_key, secret

    async def enable(self, access_key: str, *, enabled: bool) -> None:
        """Let a key sign, or no longer. Raises NotFound, InvalidRequest for a root key."""
        await self._change(access_key, lambda row: msgspec.structs.replace(row, enabled=enabled))

    async def grant(
        self, access_key: str, granted: Mapping[str, Permissions], revoked: frozenset[str]
    ) -> dict[str, Permissions]:
        """Take all grants in `revoked` buckets away, then add `granted`; the grants that the key has then.

        Raises NotFound, InvalidRequest for a root key.
        """

        def changed(row: AccessKeyRow) -> AccessKeyRow:
            grants = {name: kept for name, kept in decode_grants(row.grants).items() if name not in revoked}
            for name, added in granted.items():
                grants[name] = grants.get(name, frozenset()) | added
            return msgspec.structs.replace(row, grants=encode_grants(grants))

        return decode_grants((await self._change(access_key, changed)).grants)

    async def delete(self, access_key: str) -> None:
        """Raises NotFound, InvalidRequest for the root key."""
        for _ in range(_ATTEMPTS_MAX_COUNT):
            row, found = await self._row(access_key)
            if row.root and row.enabled:
                raise _root_stays(access_key)
            if await self._commit([Delete(found.key)], [HasToken(found.key, found.token)]):
                return
        raise Unavailable("the key keeps changing")

    async def _change(self, access_key: str, change: _Change) -> AccessKeyRow:
        for _ in range(_ATTEMPTS_MAX_COUNT):
            row, found = await self._row(access_key)
            if row.root:
                raise _root_stays(access_key)
            changed = change(row)
            if await self._commit([Put(found.key, changed.encode())], [HasToken(found.key, found.token)]):
                return changed
        raise Unavailable("the key keeps changing")

    async def _commit(self, changes: list[Change], expecting: list[Expectation]) -> bool:
        """Whether the commit went through; False when somebody else was faster."""
        marker = AccessKeysRow(AccessKeysRow.SHAPE, self._clock.now_ns())
        try:
            await self._meta.commit(
                [*changes, Put(ACCESS_KEYS, marker.encode())], expecting, token=new_token(self._randomness)
            )
        except PreconditionFailed:
            return False
        return True

    def _draw(self) -> tuple[str, str]:
        name = base64.b32encode(self._randomness.bytes(_ACCESS_KEY_RANDOM_BYTES)).decode()
        secret = base64.b64encode(self._randomness.bytes(_SECRET_RANDOM_BYTES), altchars=b"Hf").decode()
        return f"AKIA{name}", secret

    async def _row(self, access_key: str) -> tuple[AccessKeyRow, Row]:
        (found,) = await self._meta.get_many([access_key_row_key(access_key)]) if access_key else (None,)
        if found is None:
            raise NotFound(f"there is no access key {access_key}: `holdfast key list` names them")
        return AccessKeyRow.decode(found.value), found

    async def _rows(self) -> dict[str, tuple[AccessKeyRow, Row]]:
        rows: dict[str, tuple[AccessKeyRow, Row]] = {}
        # Behind the row that stands for all of them.
        start: bytes | None = ACCESS_KEYS + b"\0"
        while start is not None:
            page = await self._meta.scan(KeyRange(start, prefix_end(ACCESS_KEYS)), limit=_PAGE_COUNT)
            for entry in page.entries:
                assert isinstance(entry, Row)
                rows[entry.key[len(ACCESS_KEYS) :].decode()] = AccessKeyRow.decode(entry.value), entry
            start = page.resume
        return rows


def access_of(row: AccessKeyRow) -> Access:
    """What the key of that row may do."""
    return ROOT if row.root else Access(grants=decode_grants(row.grants))


def _root_stays(access_key: str) -> InvalidRequest:
    return InvalidRequest(
        f"{access_key} is a root key: serve with another HOLDFAST_ROOT_ACCESS_KEY to replace the one in use, and "
        "delete the one that was replaced"
    )


def _check(access_key: str, secret: str) -> None:
    if not 3 <= len(access_key) <= _ACCESS_KEY_MAX_CHARS or not access_key.isascii() or not access_key.isprintable():
        raise InvalidName("an access key has 3 to 128 printable ASCII characters")
    if any(character in access_key for character in "/,= "):
        raise InvalidName("an access key must not hold '/', ',', '=' or a space: signatures could not name it")
    if len(secret) < 8 or not secret.isprintable():
        raise InvalidName("a secret key has at least 8 printable characters")
