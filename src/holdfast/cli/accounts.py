"""S3 key pairs: rows in the metadata, and the copy of them that each process checks signatures against."""

import asyncio
import base64

from holdfast.core.clock import Clock, Randomness
from holdfast.core.errors import HoldfastError, InvalidName, NotFound, PreconditionFailed
from holdfast.core.ids import new_token
from holdfast.core.ranges import prefix_range
from holdfast.meta.interface import IsAbsent, Meta, Put, Row
from holdfast.objects.rows import ACCESS_KEYS, AccessKeyRow, access_key_row_key

# A disabled key must be refused everywhere within five seconds.
REFRESH_SECONDS = 2.0

# As AWS draws them: 20 characters that begin with AKIA are an access key, 40 a secret.
_ACCESS_KEY_RANDOM_BYTES = 10
_SECRET_RANDOM_BYTES = 30
_ACCESS_KEY_MAX_CHARS = 128


class Accounts:
    """The `A` rows; implements the S3 gateway's `Credentials`."""

    def __init__(self, meta: Meta, clock: Clock, randomness: Randomness) -> None:
        self._meta = meta
        self._clock = clock
        self._randomness = randomness
        self._secrets: dict[str, str] = {}
        self._refreshing: asyncio.Task[None] | None = None

    def secret(self, access_key: str) -> str:
        """The secret of an enabled key. Raises NotFound."""
        try:
            return self._secrets[access_key]
        except KeyError:
            raise NotFound("no such access key") from None

    async def start(self) -> None:
        """Read the keys, and go on reading them."""
        await self._refresh()
        self._refreshing = asyncio.create_task(self._keep_fresh(), name="access keys")

    async def close(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def root(self) -> tuple[str, str]:
        """The root key pair. Raises NotFound in a store that is being made."""
        for access_key, row in await self._rows():
            if row.root and row.enabled:
                return access_key, row.secret
        raise NotFound("the store has no root key")

    async def ensure_root(self, given: tuple[str, str] | None) -> tuple[str, str]:
        """Make `given` the root key pair, or keep the one there is, or draw one."""
        rows = await self._rows()
        present = [(access_key, row.secret) for access_key, row in rows if row.root and row.enabled]
        if given is None and present:
            return present[0]
        if given is not None and present == [given]:
            return given
        access_key, secret = given or self._draw()
        _check(access_key, secret)
        changes = [
            Put(access_key_row_key(old), AccessKeyRow(AccessKeyRow.SHAPE, old_secret, True, False, 0).encode())
            for old, old_secret in present
            if old != access_key
        ]
        row = AccessKeyRow(AccessKeyRow.SHAPE, secret, True, True, self._clock.now_ns())
        changes.append(Put(access_key_row_key(access_key), row.encode()))
        expecting = [IsAbsent(access_key_row_key(access_key))] if given is None else []
        try:
            await self._meta.commit(changes, expecting, token=new_token(self._randomness))
        except PreconditionFailed:
            return await self.ensure_root(given)
        return access_key, secret

    def _draw(self) -> tuple[str, str]:
        name = base64.b32encode(self._randomness.bytes(_ACCESS_KEY_RANDOM_BYTES)).decode()
        secret = base64.b64encode(self._randomness.bytes(_SECRET_RANDOM_BYTES), altchars=b"Hf").decode()
        return f"AKIA{name}", secret

    async def _rows(self) -> list[tuple[str, AccessKeyRow]]:
        page = await self._meta.scan(prefix_range(ACCESS_KEYS), limit=1000)
        return [(e.key[1:].decode(), AccessKeyRow.decode(e.value)) for e in page.entries if isinstance(e, Row)]

    async def _refresh(self) -> None:
        self._secrets = {access_key: row.secret for access_key, row in await self._rows() if row.enabled}

    async def _keep_fresh(self) -> None:
        while True:
            await self._clock.sleep(REFRESH_SECONDS)
            try:
                await self._refresh()
            except HoldfastError:
                # Without the metadata nothing is served anyway; the keys may not outlive it.
                self._secrets = {}


def _check(access_key: str, secret: str) -> None:
    if not 3 <= len(access_key) <= _ACCESS_KEY_MAX_CHARS or not access_key.isascii() or not access_key.isprintable():
        raise InvalidName("an access key has 3 to 128 printable ASCII characters")
    if any(character in access_key for character in "/,= "):
        raise InvalidName("an access key must not hold '/', ',', '=' or a space: signatures could not name it")
    if len(secret) < 8 or not secret.isprintable():
        raise InvalidName("a secret key has at least 8 printable characters")
