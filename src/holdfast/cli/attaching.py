"""Which of a store's drives this process has open: those that are there, as they come and go.

Rules.

- A drive is where its identity is. What lies at a path is read again every look, so a disk that was pulled, emptied or
  swapped for another is let go of, and one that came back, or was added by a command, is opened.
- A drive that failed is closed and opened again, ever more seldom while it goes on failing.
- A drive that the layout calls GONE is never opened: it may hold fragments of long ago.
- A disk that hangs keeps nobody from noticing the others. Whether its drive is still there cannot be seen, so it stays.
- The mapping `drives` is changed in place; whoever uses it looks at it anew each time.
"""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from holdfast.cli.lookout import Lookout
from holdfast.cli.site import Site
from holdfast.core.attendance import Attendance
from holdfast.core.clock import Clock, Randomness
from holdfast.core.disk import Disk
from holdfast.core.errors import HoldfastError
from holdfast.core.ids import DriveId
from holdfast.drives.buffers import BufferPool
from holdfast.drives.directory import DirectoryDrive, open_drive

# A drive that fails as soon as it is written to would otherwise be reopened every second.
RETRY_FIRST_SECONDS = 1.0
RETRY_MAX_SECONDS = 60.0

# A disk that hangs may keep its threads for ever: the process does not wait for it when it ends.
CLOSE_MAX_SECONDS = 10.0

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class _Trouble:
    """A drive that failed, or would not open."""

    reason: str
    seconds: float
    again_at: float


class Attachments:
    """The open drives of one process. Made by `open_attachments`."""

    def __init__(
        self,
        site: Site,
        directories: Collection[Path],
        disk: Disk,
        randomness: Randomness,
        clock: Clock,
        attendance: Attendance | None = None,
        buffers: BufferPool | None = None,
    ) -> None:
        self.drives: dict[DriveId, DirectoryDrive] = {}
        self.gone: Collection[DriveId] = ()
        """Drives that the layout has done with."""
        self.changes = 0
        """How often a drive came or went."""
        self._store = site.store
        self._places = dict(site.places)
        self._directories = [*directories, *site.unnamed]
        self._disk = disk
        self._randomness = randomness
        self._clock = clock
        self._attendance = attendance
        self._pool = buffers or BufferPool()
        self._troubled: dict[DriveId, _Trouble] = {}
        self._lookout = Lookout(disk, site.store)
        self._opening: dict[DriveId, asyncio.Task[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def places(self) -> dict[DriveId, Path]:
        """Where each drive of the store is, or was last seen."""
        return dict(self._places)

    def why_missing(self, drive: DriveId) -> str:
        """Why a drive is not open, in words; "" when all that is known is that it is not there."""
        trouble = self._troubled.get(drive)
        return trouble.reason if trouble is not None else ""

    async def look(self) -> None:
        """Let go of drives that are not there any more, and open those that are."""
        await self.notice()
        await asyncio.gather(*self._opening.values())

    async def notice(self) -> None:
        """As `look`, but not waiting for drives to open: one that hangs, or makes its index anew, takes its time."""
        found = await self._find()
        self._places |= found
        for drive in list(self.drives.values()):
            if drive.id in self.gone:
                self._let_go(drive, "")
            elif drive.failure is not None:
                self._let_go(drive, drive.failure)
            elif found.get(drive.id) != drive.directory:
                self._let_go(drive, f"{drive.directory} does not hold it any more")
        for drive_id, path in found.items():
            if self._is_due(drive_id):
                task = asyncio.create_task(self._attach(drive_id, path), name=f"open {path}")
                self._opening[drive_id] = task
                task.add_done_callback(partial(self._opened, drive_id))

    async def close(self) -> None:
        """Close every drive; one that does not answer is left behind."""
        self._is_closed = True
        for drive in list(self.drives.values()):
            self._closing.add(asyncio.create_task(drive.close()))
        self.drives.clear()
        ending = {*self._closing, *self._opening.values()}
        if ending:
            await asyncio.wait(ending, timeout=CLOSE_MAX_SECONDS)

    async def _find(self) -> dict[DriveId, Path]:
        """Every drive of the store that is there, or that cannot be seen to have gone."""
        seen = await self._lookout.look((*self._directories, *self._places.values()))
        remembered = [place for sight in seen.values() if sight is not None for place in sight.places.values()]
        seen |= await self._lookout.look(place for place in remembered if place not in seen)
        found: dict[DriveId, Path] = {}
        for path, sight in seen.items():
            if sight is not None and sight.drive is not None:
                found.setdefault(sight.drive, path)
        for drive in self.drives.values():
            if drive.directory in seen and seen[drive.directory] is None:
                found.setdefault(drive.id, drive.directory)
        return found

    def _is_due(self, drive: DriveId) -> bool:
        trouble = self._troubled.get(drive)
        is_late = trouble is None or self._clock.monotonic() >= trouble.again_at
        is_closed = drive not in self.drives and drive not in self._opening
        return is_closed and drive not in self.gone and is_late

    async def _attach(self, drive: DriveId, path: Path) -> None:
        try:
            opened = await open_drive(
                path,
                disk=self._disk,
                randomness=self._randomness,
                store=self._store,
                drive=drive,
                pool=self._pool,
                attendance=self._attendance,
            )
        except HoldfastError as error:
            self._note(drive, str(error))
            _LOGGER.warning("drive %s is left out: %s", path, error)
            return
        if self._is_closed:
            await opened.close()
            return
        self.drives[drive] = opened
        self.changes += 1

    def _opened(self, drive: DriveId, _: "asyncio.Task[None]") -> None:
        del self._opening[drive]

    def _let_go(self, drive: DirectoryDrive, reason: str) -> None:
        del self.drives[drive.id]
        self.changes += 1
        if reason:
            self._note(drive.id, reason)
            _LOGGER.warning("drive %s is let go of: %s", drive.directory, reason)
        task = asyncio.create_task(drive.close())
        self._closing.add(task)
        task.add_done_callback(self._closed)

    def _closed(self, task: "asyncio.Task[None]") -> None:
        self._closing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _LOGGER.warning("a drive could not be closed: %s", task.exception())

    def _note(self, drive: DriveId, reason: str) -> None:
        before = self._troubled.get(drive)
        seconds = RETRY_FIRST_SECONDS if before is None else min(2 * before.seconds, RETRY_MAX_SECONDS)
        self._troubled[drive] = _Trouble(reason, seconds, self._clock.monotonic() + seconds)
