"""Hashes of a body while it streams by, in threads that release the GIL.

One update runs at a time for each body, in order: MD5 is a chain. Everything else of an upload runs beside it, since
MD5 alone bounds what a single upload can reach.
"""

import asyncio
import hashlib
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, Protocol

from holdfast.core import crc
from holdfast.core.errors import InvalidRequest
from holdfast.core.ids import Buffer
from holdfast.objects.model import Digests

# Below this a thread costs more than the hash.
INLINE_MAX_BYTES = 32 * 1024


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...

    def digest(self) -> bytes: ...


class _Crc:
    """A CRC with hashlib's manners; the digest is big-endian, as S3 encodes it."""

    def __init__(self, name: str) -> None:
        self._step, self._bytes = _CRCS[name]
        self._value = 0

    def update(self, data: Buffer, /) -> None:
        self._value = self._step(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(self._bytes, "big")


_CRCS: dict[str, tuple[Callable[[Any, int], int], int]] = {
    "crc32": (zlib.crc32, 4),
    "crc32c": (crc.crc32c, 4),
    "crc64nvme": (crc.crc64nvme, 8),
}
_HASHES = {"md5", "sha1", "sha256", "sha512", "blake2b"}


def _new(name: str) -> _Hash:
    if name in _CRCS:
        return _Crc(name)
    if name in _HASHES:
        return hashlib.new(name, usedforsecurity=False)
    raise InvalidRequest(f"no such digest: {name}")


class Digester:
    """The hashes of a body that were asked for; none at all costs nothing but counting."""

    def __init__(self, names: Sequence[str], executor: Executor) -> None:
        self._hashes: dict[str, _Hash] = {name: _new(name) for name in names}
        self._executor = executor
        self._size = 0

    async def update(self, data: Buffer) -> None:
        """Take in more of the body. One call at a time; the buffer may be reused on return."""
        self._size += len(data)
        if len(data) <= INLINE_MAX_BYTES or not self._hashes:
            self._update_all(data)
        else:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._update_all, data)

    def whole(self, data: Buffer) -> Digests:
        """Those of a small body, at once."""
        self._size += len(data)
        self._update_all(data)
        return self.digests()

    def digests(self) -> Digests:
        return Digests(self._size, {name: running.digest() for name, running in self._hashes.items()})

    def _update_all(self, data: Buffer) -> None:
        for running in self._hashes.values():
            running.update(data)
