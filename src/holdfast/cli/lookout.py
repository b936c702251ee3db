"""What lies in directories, without waiting for a disk that hangs.

Rules. Each directory is read in a thread of its own, and by one at a time: as long as a read has not come back nobody
begins another there, and whoever looks is told that the directory does not answer. No process waits for these threads
when it ends.
"""

import asyncio
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from holdfast.cli.site import identity_at, read_places
from holdfast.core.disk import Disk
from holdfast.core.ids import DriveId, StoreId

# Not answering decides nothing, so this need not cover a disk that spins up: it is seen at a later look.
ANSWER_MAX_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Sight:
    """What was seen in a directory."""

    drive: DriveId | None
    """The store's drive that is there; None when none can be seen."""
    places: Mapping[DriveId, Path]
    """Where that drive remembers the store's other drives."""


class Lookout:
    """Looks for the drives of one store. Used by one event loop."""

    def __init__(self, disk: Disk, store: StoreId) -> None:
        self._disk = disk
        self._store = store
        self._reads: dict[Path, asyncio.Future[Sight]] = {}
        """Reads that nobody has heard the end of yet."""
        self._turn = asyncio.Lock()

    async def look(self, paths: Iterable[Path]) -> dict[Path, Sight | None]:
        """What lies at each path, in their order; None where nothing has answered in time."""
        paths = list(dict.fromkeys(paths))
        async with self._turn:
            # Who did not answer before is not waited for again.
            begun = {path: self._begin(path) for path in paths if path not in self._reads}
            self._reads |= begun
            if begun:
                await asyncio.wait(begun.values(), timeout=ANSWER_MAX_SECONDS)
            return {path: self._heard(path) for path in paths}

    def _heard(self, path: Path) -> Sight | None:
        read = self._reads[path]
        if not read.done():
            return None
        del self._reads[path]
        return read.result()

    def _begin(self, path: Path) -> "asyncio.Future[Sight]":
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Sight] = loop.create_future()

        def read() -> None:
            sight = self._see(path)
            with suppress(RuntimeError):  # the loop has ended, and nobody wants to know any more
                loop.call_soon_threadsafe(future.set_result, sight)

        threading.Thread(target=read, name=f"look {path}", daemon=True).start()
        return future

    def _see(self, path: Path) -> Sight:
        identity = identity_at(self._disk, path)
        if identity is None or identity.store != self._store:
            return Sight(None, {})
        return Sight(identity.drive, read_places(self._disk, path))
