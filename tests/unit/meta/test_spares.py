"""Files that are made ahead of time: two who make the same one at once must not write into each other's records."""

import asyncio
from pathlib import Path
from threading import Event

from holdfast.core.ranges import KeyRange
from holdfast.drives.os_disk import OsDisk
from holdfast.meta.interface import Put, Row
from holdfast.meta.local.engine import LocalMeta
from holdfast.meta.local.mirror import Mirror
from holdfast.testing.faulty_disk import Fault, FaultyDisk
from holdfast.testing.meta_suite import scan_all, token
from tests.unit.meta.stores import Place, drive_id


class Writer:
    """Commits rows of 3,000 bytes, one after the other."""

    def __init__(self, place: Place, meta: LocalMeta) -> None:
        self._place = place
        self._meta = meta
        self.acknowledged = 0

    async def write(self, count: int) -> None:
        for _ in range(count):
            number = self.acknowledged
            await self._meta.commit([Put(b"%06d" % number, b"v" * 3000)], token=token(number))
            self.acknowledged += 1

    async def write_to_segment(self, wanted: int) -> None:
        """Until the log has reached its `wanted`th segment."""
        while len(list(self._place.root.glob("drive0/meta/log-*"))) < wanted:
            await self.write(1)


async def test_upkeep_that_fills_a_spare_slowly_leaves_the_records_alone(tmp_path: Path) -> None:
    """It is held up while it writes zeros; meanwhile the committer needs a spare, and then another segment."""
    place = Place(tmp_path, 1, 0).create()
    go_on = Event()
    fault = Fault("write", "spare.new", error=0, until=go_on, times=1)
    disk = FaultyDisk(OsDisk())
    disk.faults.append(fault)
    async with await place.open(disk) as meta:
        writer = Writer(place, meta)
        try:
            await writer.write_to_segment(2)
            assert await asyncio.to_thread(fault.struck.wait, 20)
            await writer.write_to_segment(3)
            await writer.write(5)
        finally:
            go_on.set()
        # Waits for the upkeep that was held up.
        await meta.mend()
        await writer.write(5)
    place.forget_views()
    async with await place.open() as meta:
        rows = [row.key for row in await scan_all(meta, KeyRange(), limit=1000) if isinstance(row, Row)]
        assert rows == [b"%06d" % number for number in range(writer.acknowledged)]
        assert await meta.verify() == []


def test_a_file_is_made_by_one_at_a_time(tmp_path: Path) -> None:
    first, second = (Mirror(OsDisk(), drive_id(0), tmp_path) for _ in range(2))
    held = OsDisk().open(tmp_path / "spare.new", create=True)
    held.lock(exclusive=True)
    first.prepare(8192, 4096)
    assert OsDisk().list_directory(tmp_path) == ["reserve", "spare.new"]
    assert held.size() == 0, "somebody else is making it"
    held.close()
    second.prepare(8192, 4096)
    assert OsDisk().list_directory(tmp_path) == ["reserve", "spare"]


def test_what_was_finished_meanwhile_is_not_written_to(tmp_path: Path) -> None:
    """Opened under the unfinished name, locked after somebody else gave it its name and let go."""

    class Overtaken(OsDisk):
        def open(self, path: Path, *, create: bool = False, exclusive: bool = False, direct: bool = False):  # type: ignore[no-untyped-def]
            file = super().open(path, create=create)
            if path.name == "spare.new":
                file.write((b"a record",), 0)
                path.rename(tmp_path / "log-0000000000000001")
            return file

    mirror = Mirror(Overtaken(), drive_id(0), tmp_path)
    mirror.prepare(8192, 4096)
    assert (tmp_path / "log-0000000000000001").read_bytes() == b"a record"
