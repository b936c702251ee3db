"""Stores for the tests: directories in place of drives, and a handle that several tests share."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from holdfast.core.disk import Disk
from holdfast.core.ids import DriveId, StoreId
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.local.bounded import Patience
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.mirror import Sizes
from holdfast.meta.local.setup import create_local, open_local

SMALL = Sizes(segment=256 * 1024, reserve=64 * 1024, log=1024 * 1024)
STORE = StoreId(b"store-----------")


class Chance:
    """`core.clock.Randomness` by the operating system."""

    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


@dataclass(frozen=True)
class Place:
    """A store's directories."""

    root: Path
    count: int
    losses: int

    @property
    def drives(self) -> dict[DriveId, Path]:
        return {drive_id(number): self.root / f"drive{number}" / "meta" for number in range(self.count)}

    @property
    def run(self) -> Path:
        return self.root / "run"

    def create(self, disk: Disk | None = None) -> "Place":
        create_local(self.drives, store=STORE, losses=self.losses, disk=disk or OsDisk(), sizes=SMALL)
        return self

    async def open(self, disk: Disk | None = None, sizes: Sizes = SMALL, patience: Patience | None = None) -> LocalMeta:
        return await open_local(
            self.drives,
            store=STORE,
            run=self.run,
            disk=disk or OsDisk(),
            randomness=Chance(),
            sizes=sizes,
            patience=patience,
        )

    def forget_views(self) -> None:
        """As a power cut does: no view may be believed."""
        for view in self.root.glob("drive*/meta/view-*"):
            shutil.rmtree(view)


def drive_id(number: int) -> DriveId:
    return DriveId(b"drive %010d" % number)
