"""Where a block's fragments belong and may be: the partition tables of the live layouts, and the drives at hand."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor

from holdfast.core.errors import InvalidRequest, Unavailable
from holdfast.core.ids import DriveId
from holdfast.drives.interface import Drive
from holdfast.erasure import BlockRef
from holdfast.placement import Layout, PartitionTable, partition_table

# More layouts than these would make a read of something missing slow; moves must end first.
LAYOUTS_LIVE_MAX_COUNT = 3


class Places:
    """The live layouts' tables, made when first needed, and the drives that answer.

    `drives` is looked at anew by every call: whoever owns the mapping may put drives in and take them out.
    """

    def __init__(self, drives: Mapping[DriveId, Drive], executor: Executor | None) -> None:
        self.drives = drives
        self._executor = executor
        self._layouts: dict[bytes, Layout] = {}
        """By hash, the newest first."""
        self._tables: dict[tuple[bytes, int], PartitionTable] = {}
        self._in_the_making: dict[tuple[bytes, int], asyncio.Future[PartitionTable]] = {}

    def use(self, layouts: Sequence[Layout]) -> None:
        """Follow these layouts from now on. Raises InvalidRequest when there are none, or too many."""
        if not 0 < len(layouts) <= LAYOUTS_LIVE_MAX_COUNT:
            raise InvalidRequest(f"{len(layouts)} layouts; between 1 and {LAYOUTS_LIVE_MAX_COUNT} are live")
        newest_first = sorted(layouts, key=lambda layout: layout.version, reverse=True)
        self._layouts = {layout.hash: layout for layout in newest_first}
        self._tables = {key: table for key, table in self._tables.items() if key[0] in self._layouts}

    async def tables(self, width: int) -> list[PartitionTable]:
        """Tables for blocks of `width` fragments, of the newest layout first. Raises Unavailable without a layout."""
        if not self._layouts:
            raise Unavailable("no layout is known yet")
        return [await self._table(name, layout, width) for name, layout in list(self._layouts.items())]

    async def newest(self, width: int) -> PartitionTable:
        """The table that blocks are written by."""
        if not self._layouts:
            raise Unavailable("no layout is known yet")
        name, layout = next(iter(self._layouts.items()))
        return await self._table(name, layout, width)

    async def homes(self, ref: BlockRef) -> list[list[DriveId]]:
        """For each fragment, the drives where the live layouts want it, the newest layout's first."""
        homes: list[list[DriveId]] = [[] for _ in range(ref.code.width)]
        for table in await self.tables(ref.code.width):
            for index, drive in enumerate(table.homes(ref.id)):
                if drive not in homes[index]:
                    homes[index].append(drive)
        return homes

    async def _table(self, name: bytes, layout: Layout, width: int) -> PartitionTable:
        """The table; made once, however many ask for it at once and whoever of them is cancelled."""
        key = name, width
        table = self._tables.get(key)
        if table is not None:
            return table
        made = self._in_the_making.get(key)
        if made is None:
            made = asyncio.get_running_loop().run_in_executor(self._executor, partition_table, layout, width)
            self._in_the_making[key] = made
        table = await asyncio.shield(made)
        self._in_the_making.pop(key, None)
        if name in self._layouts:
            self._tables[key] = table
        return table
