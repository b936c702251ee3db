"""The progress of a transfer on a terminal, by rich."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from holdfast.cli.output import size

if TYPE_CHECKING:
    from holdfast.cli.client.reporting import Meter


class _Items(ProgressColumn):
    """How many of how many; nothing for a single one."""

    def __init__(self, meter: "Meter") -> None:
        super().__init__()
        self._meter = meter

    def render(self, task: Task) -> Text:
        known, more = self._meter.items_known, "" if self._meter.is_all_known else "+"
        return Text(f"{self._meter.items_done:,}/{known:,}{more}" if known > 1 else "")


class _Speed(ProgressColumn):
    """In the units of everything else."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{size(int(speed))}/s" if speed else "")


class _Bars(Progress):
    """Reads the meter whenever it is drawn, so that no transfer waits for a terminal."""

    def __init__(self, meter: "Meter", what: str, per_second: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), _Items(meter), DownloadColumn(binary_units=True))
        super().__init__(
            *columns,
            _Speed(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            refresh_per_second=per_second,
        )
        self._meter = meter
        self._task = self.add_task(what, total=None)

    def get_renderables(self) -> Iterable[RenderableType]:
        if hasattr(self, "_task"):
            total = self._meter.bytes_known if self._meter.is_all_known else None
            self.update(self._task, completed=self._meter.bytes_done, total=total)
        return super().get_renderables()


@contextmanager
def drawn(meter: "Meter", what: str, per_second: int) -> Iterator[None]:
    """Draw the meter on standard error until the end of the block."""
    with _Bars(meter, what, per_second):
        yield
