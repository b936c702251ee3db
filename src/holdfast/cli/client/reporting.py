"""How the commands of users speak.

Standard output has the results: lines for people, or with --json one object a line. Standard error has what is said on
the way: failures, notes, and on a terminal the progress. Names of objects may hold anything, so control characters in
them are written as escapes, unless they are in JSON, which is exact.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from holdfast.cli.output import size
from holdfast.core.errors import HoldfastError

# Counters on a terminal are drawn this often at most.
_DRAWS_PER_SECOND = 10


def shown(name: str) -> str:
    """A name as it may go to a terminal: no control characters, none of the half characters of odd file names."""
    if name.isprintable():
        return name
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def stamp(moment: datetime) -> str:
    """A time as listings show it, this machine's zone."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


class Meter:
    """What is done of a transfer. Told from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.bytes_done = 0
        self.bytes_known = 0
        self.items_done = 0
        self.items_known = 0
        self.is_all_known = False
        self.drawn: Any = None

    def expect(self, count: int) -> None:
        """One more item, of so many bytes."""
        with self._lock:
            self.items_known += 1
            self.bytes_known += count

    def advance(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self.bytes_done += count

    def finish_item(self) -> None:
        with self._lock:
            self.items_done += 1


class Reporter:
    """Where a command's results go, and what came of it all."""

    def __init__(self, *, as_json: bool, quiet: bool = False, results_are_bytes: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.failures = 0
        self._results = sys.stderr if results_are_bytes else sys.stdout
        self.shows_progress = sys.stderr.isatty() and not quiet and not as_json

    def result(self, text: str, **record: Any) -> None:
        """A line of what was asked for: in words, or as an object."""
        click.echo(json.dumps(record, default=_plain) if self.as_json else text, file=self._results)

    def done(self, text: str, **record: Any) -> None:
        """Something that was carried out. On a terminal the progress says it."""
        if self.as_json or not (self.quiet or self.shows_progress):
            self.result(text, **record)

    def summary(self, text: str, **record: Any) -> None:
        """What came of everything."""
        if self.as_json:
            self.result(text, status="summary", **record)
        elif not self.quiet:
            click.echo(text, file=self._results)

    def note(self, text: str) -> None:
        """What should be known, on standard error."""
        if not self.quiet:
            click.echo(text, err=True)

    def fail(self, error: HoldfastError, name: str = "") -> None:
        """One of several things failed; the others go on."""
        self.failures += 1
        if self.as_json:
            self.result("", status="failed", name=name, error=error.code, message=str(error))
        click.echo(f"{click.style('Failed:', fg='red', bold=True)} {shown(str(error))}", err=True)

    def end(self) -> None:
        """Exit status 1 if anything failed."""
        if self.failures:
            raise SystemExit(1)

    @contextmanager
    def meter(self, what: str) -> Iterator[Meter]:
        """Bytes and items as they go by: drawn on a terminal, silent elsewhere."""
        meter = Meter()
        if not self.shows_progress:
            yield meter
            return
        from holdfast.cli.client.bars import drawn

        with drawn(meter, what, _DRAWS_PER_SECOND):
            yield meter


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)


def in_words(count: int, seconds: float) -> str:
    """ "1.2 GiB in 3.4 s, 361 MiB/s"."""
    if seconds <= 0:
        return size(count)
    return f"{size(count)} in {seconds:.1f} s, {size(int(count / seconds))}/s"
