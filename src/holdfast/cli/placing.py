"""The layouts as upkeep asks for them: partition tables over the layouts' rows, each made once."""

from collections.abc import Sequence

from holdfast.core.ids import DriveId
from holdfast.erasure import BlockRef
from holdfast.objects.layouts import Layouts
from holdfast.placement import Layout, PartitionTable, partition_table


class TablePlacing:
    """`cluster.heal.Placing` of one layout."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._tables: dict[int, PartitionTable] = {}

    @property
    def version(self) -> int:
        return self._layout.version

    def drives(self, ref: BlockRef) -> tuple[DriveId, ...]:
        width = ref.code.width
        table = self._tables.get(width)
        if table is None:
            table = self._tables[width] = partition_table(self._layout, width)
        return table.drives(ref.id)


class RowLayouts:
    """`upkeep.interface.Layouts` over the `L` rows."""

    def __init__(self, layouts: Layouts) -> None:
        self._layouts = layouts
        self._placings: dict[int, TablePlacing] = {}

    async def live(self) -> Sequence[TablePlacing]:
        live = await self._layouts.live()
        self._placings = {layout.version: self._placings.get(layout.version) or TablePlacing(layout) for layout in live}
        return list(self._placings.values())

    async def retire(self, version: int) -> None:
        await self._layouts.retire(version)
