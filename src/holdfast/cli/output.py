"""How commands speak: tables and progress on a terminal, plain lines elsewhere, one JSON document with --json.

What is said on the way goes to standard error when a document is wanted, so that standard output can be parsed. rich is
imported when something is drawn on a terminal: it takes longer to load than most commands take.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from holdfast.core.limits import KIB

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


class Progress:
    """Something that takes a while."""

    def __init__(self, bars: "Bars | None", task: "TaskID | None") -> None:
        self._bars = bars
        self._task = task

    def at(self, done: float, total: float | None = None) -> None:
        """So much is done."""
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)


class Output:
    """Where a command's results go."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self._file = sys.stderr if as_json else sys.stdout
        self._on_terminal = self._file.isatty()

    @cached_property
    def _console(self) -> "Console":
        from rich.console import Console

        return Console(file=self._file, highlight=False, markup=False)

    def say(self, text: str) -> None:
        """A line for people."""
        if self._on_terminal:
            self._console.print(text, markup=False)
        else:
            click.echo(text, file=self._file)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self._on_terminal:
            from rich.table import Table

            table = Table(*columns, box=None, pad_edge=False)
            for row in rows:
                table.add_row(*row)
            self._console.print(table)
            return
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        for row in (columns, *rows):
            self.say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def document(self, content: dict[str, Any]) -> None:
        """The result, for programs; nothing unless it was asked for."""
        if self.as_json:
            click.echo(json.dumps(content, indent=1))

    @contextmanager
    def progress(self, what: str, total: float | None = None) -> Iterator[Progress]:
        """A bar on a terminal; elsewhere silence, the summary says it all."""
        if not self._on_terminal:
            yield Progress(None, None)
            return
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bars(*columns, console=self._console, transient=True) as bars:
            yield Progress(bars, bars.add_task(what, total=total))


def size(count: int) -> str:
    """Bytes with a unit: "512 B", "1.4 TiB"."""
    if count < KIB:
        return f"{count} B"
    value = float(count)
    for unit in _UNITS:
        value /= KIB
        if value < KIB or unit == _UNITS[-1]:
            return f"{value:.3g} {unit}" if value < 999.5 else f"{value:.0f} {unit}"
    raise AssertionError


def count(number: int, noun: str, plural: str = "") -> str:
    """ "1 block", "2 blocks"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def listed(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else "".join(names)
