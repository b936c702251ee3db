"""A write over drives in directories, one of which hangs: fakes end as soon as they are cancelled, disks do not."""

import asyncio
import threading
from pathlib import Path

from holdfast.cli.system import SystemClock
from holdfast.cluster import Cluster
from holdfast.core.ids import DriveId
from holdfast.drives.interface import Drive
from holdfast.drives.os_disk import OsDisk
from holdfast.erasure import copies, encode
from holdfast.placement import LayoutDrive, first_layout
from holdfast.testing.faulty_disk import Fault, FaultyDisk
from tests.unit.drives.opened import Opened


async def test_a_write_is_answered_without_the_disk_that_hangs(tmp_path: Path) -> None:
    disk = FaultyDisk(OsDisk())
    opened = [Opened(tmp_path / f"drive{number}", disk=disk, seed=number) for number in range(3)]
    drives: dict[DriveId, Drive] = {}
    for one in opened:
        drive = await one.open()
        drives[drive.id] = drive
    layout = first_layout(LayoutDrive(drive, 1 << 30, f"node {number}") for number, drive in enumerate(drives))
    cluster = Cluster(drives, [layout], clock=SystemClock())
    go_on = threading.Event()
    disk.faults.append(Fault("sync", "drive1/segments", error=0, until=go_on))
    try:
        block = encode(b"a block " * 1000, copies(3))
        homes = await cluster._places.homes(block.ref)
        putting = asyncio.ensure_future(cluster.put(block, b"tag"))
        answered, _ = await asyncio.wait((putting,), timeout=60)
        assert answered
        # On a busy machine one that works may be late as well.
        assert homes.index([opened[1].drives[0].id]) in putting.result().missing
        assert await cluster.get(block.ref, bytes) == b"a block " * 1000
    finally:
        go_on.set()
        for one in opened:
            await one.close()
