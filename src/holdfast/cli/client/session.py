"""What every command of users is given: options of its own kind, a session, and an end that says what came of it."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from holdfast.cli.client.reporting import Reporter, shown
from holdfast.core.errors import HoldfastError, InvalidName

if TYPE_CHECKING:
    from holdfast.cli.client.connection import Connection
    from holdfast.cli.client.crew import Crew
    from holdfast.cli.client.transfer import Transfers

# Enough to keep a server busy, few enough for a laptop's line.
JOBS_DEFAULT_COUNT = 8
JOBS_MAX_COUNT = 256

# The exit status of what SIGINT ends, by the shells' convention.
INTERRUPTED = 128 + signal.SIGINT

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Session:
    """What every command of users is given: where to, how to speak, and how much at once."""

    profile: str
    endpoint_url: str
    region: str
    jobs: int
    reporter: Reporter

    def connect(self) -> "Connection":
        from holdfast.cli.client.connection import Choice, Connection
        from holdfast.cli.system import SystemClock

        return Connection(Choice(self.profile, self.endpoint_url, self.region, self.jobs), SystemClock())

    @contextmanager
    def crew(self) -> Iterator["Crew"]:
        from holdfast.cli.client.crew import Crew

        crew = Crew(self.jobs)
        try:
            yield crew
        finally:
            crew.close()

    @property
    def notes(self) -> Path:
        """The directory of unfinished uploads."""
        from holdfast.cli.client.unfinished import default_directory

        return default_directory(dict(os.environ))

    @contextmanager
    def transfers(self, **options: Any) -> Iterator["Transfers"]:
        from holdfast.cli.client.transfer import Transfers
        from holdfast.cli.system import SystemClock

        connection = self.connect()
        with self.crew() as crew:
            yield Transfers(connection, crew, self.reporter, SystemClock(), self.notes, **options)


def connected(*, quiet: bool = False, results_are_bytes: bool = False, goes_on: bool = False) -> Callable[[F], F]:
    """Give a command the options of every command of users; it gets a Session first. One that `goes_on` ends, given
    again after an interruption, what it began."""

    def wrap(command: F) -> F:
        def run(profile: str, endpoint_url: str, region: str, as_json: bool, jobs: int, **given: Any) -> None:
            reporter = Reporter(as_json=as_json, quiet=given.pop("quiet", False), results_are_bytes=results_are_bytes)
            try:
                command(Session(profile, endpoint_url, region, jobs, reporter), **given)
            except InvalidName as error:
                raise click.UsageError(shown(str(error))) from error
            except HoldfastError as error:
                reporter.fail(error)
            except KeyboardInterrupt:
                _leave(reporter, goes_on=goes_on)
            reporter.end()

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        wrapped: Callable[..., None] = run
        for option in reversed(_COMMON + (_QUIET if quiet else ())):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[return-value]

    return wrap


def _leave(reporter: Reporter, *, goes_on: bool) -> NoReturn:
    """Without waiting for requests in flight: whatever is cut off here, a kill could have cut off."""
    reporter.note("\nInterrupted" + (": the same command goes on where this one stopped" if goes_on else ""))
    sys.stdout.flush()
    os._exit(INTERRUPTED)


_COMMON = (
    click.option(
        "--profile", default="", metavar="NAME", envvar="HOLDFAST_PROFILE", show_envvar=True,
        help="Profile of ~/.aws/config and ~/.aws/credentials.",
    ),
    click.option(
        "--endpoint-url", default="", metavar="URL", envvar="HOLDFAST_ENDPOINT_URL", show_envvar=True,
        help="The server, as http://127.0.0.1:9000; else AWS_ENDPOINT_URL or the profile's endpoint_url.",
    ),
    click.option("--region", default="", metavar="NAME", help="Region that signatures name; else as configured."),
    click.option(
        "--jobs", "-j", default=JOBS_DEFAULT_COUNT, type=click.IntRange(1, JOBS_MAX_COUNT), show_default=True,
        metavar="N", help="Requests at once.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line."),
)  # fmt: skip
_QUIET = (click.option("--quiet", "-q", is_flag=True, help="Say nothing but what went wrong."),)
