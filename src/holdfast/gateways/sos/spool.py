"""A body on its way through: an upload cannot be sent on before its SHA-1, which is its id, is known, and must be sent
again if a blob server fails. Up to `MEMORY_MAX_BYTES` are kept in memory, the rest in a file without a name, so that
nothing is left of it however the process ends."""

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Protocol, Self

from holdfast.core.errors import Full
from holdfast.core.ids import Buffer
from holdfast.core.limits import MIB

# Most files are smaller: for them no file is made, and no thread is asked.
MEMORY_MAX_BYTES = 1 * MIB

# From this size on hashing leaves the event loop: 20 us of SHA-1.
_THREAD_MIN_BYTES = 32 * 1024


class Hash(Protocol):
    """What hashlib makes."""

    def update(self, data: Buffer, /) -> None: ...

    def hexdigest(self) -> str: ...

    def copy(self) -> Self: ...


class Spool:
    """Bytes that are written once, in order, and then read any number of times. Close it."""

    def __init__(self, directory: Path, also: Hash | None = None) -> None:
        """`also` is a hash that takes in the same bytes: the SHA-1 of the file that this is a part of."""
        self._directory = directory
        self._also = also
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._hash: Hash = hashlib.sha1(usedforsecurity=False)
        self.size = 0

    @property
    def sha1(self) -> str:
        return self._hash.hexdigest()

    def copy_hash(self) -> Hash:
        """The running hash of what is here, to go on with."""
        return self._hash.copy()

    async def write(self, piece: Buffer) -> None:
        """Raises Full."""
        self.size += len(piece)
        self._memory += piece
        if len(self._memory) > MEMORY_MAX_BYTES:
            await self._flush()

    async def finish(self) -> None:
        """All is written. Raises Full."""
        if self._file is not None:
            await self._flush()
        elif len(self._memory) >= _THREAD_MIN_BYTES:
            await asyncio.to_thread(self._update, self._memory)
        else:
            self._update(self._memory)

    async def _flush(self) -> None:
        """Hash and write what is gathered, in a thread."""
        data, self._memory = self._memory, bytearray()
        await asyncio.to_thread(self._write, data)

    def _write(self, data: bytearray) -> None:
        self._update(data)
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
            view = memoryview(data)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise Full(f"{self._directory} cannot take a body on its way: {error}") from None

    def _update(self, data: bytearray) -> None:
        self._hash.update(data)
        if self._also is not None:
            self._also.update(data)

    def whole(self) -> bytes | None:
        """The bytes, if they are few."""
        return bytes(self._memory) if self._file is None else None

    async def read(self) -> AsyncIterator[bytes]:
        """All of it, from the beginning."""
        assert self._file is not None
        start = 0
        while start < self.size:
            piece = await asyncio.to_thread(os.pread, self._file.fileno(), MEMORY_MAX_BYTES, start)
            start += len(piece)
            yield piece

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
