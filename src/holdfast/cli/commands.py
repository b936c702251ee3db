"""The operator's commands: what they are called, what they take, what they say of themselves.

Each opens the store as one more process, beside a server or without one, does its work in a module of its own, and
ends with status 0 when all is well, 1 when something is wrong, 2 when it was called wrongly.
"""

import os
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import uvloop

from holdfast.cli import settings as settings_module
from holdfast.cli.output import Output
from holdfast.cli.settings import OPTIONS, Option, Settings

if TYPE_CHECKING:
    from holdfast.cli.opening import OpenStore

# Options that decide how a store is opened: every command takes them.
OPENING_OPTIONS = ("kek-file", "passphrase-file", "run-dir")


def click_option(option: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    described = f"{option.help}  [{option.variable}]"
    return click.option(f"--{option.name}", option.field, metavar=option.metavar, help=described)


def with_settings(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command DIR..., --config, and those options of the settings table; it gets `Settings` first."""
    options = [option for option in OPTIONS if option.name in names]

    def wrap(command: Callable[..., None]) -> Callable[..., None]:
        def run(drives: tuple[Path, ...], config: str | None, **given: Any) -> None:
            named = {option.name: given.pop(option.field) for option in options}
            settings = settings_module.load(drives, named, os.environ, Path(config) if config else None)
            command(settings, **given)

        run.__doc__, run.__name__ = command.__doc__, command.__name__
        run.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
        wrapped: Callable[..., None] = run
        for option in reversed(options):
            wrapped = click_option(option)(wrapped)
        wrapped = click.option("--config", metavar="FILE", envvar="HOLDFAST_CONFIG", help="Settings as TOML.")(wrapped)
        return click.argument("drives", nargs=-1, type=click.Path(path_type=Path), metavar="DIR...")(wrapped)

    return wrap


PATH = click.Path(path_type=Path)

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


def run_with_store(settings: Settings, as_json: bool, work: Callable[["OpenStore", Output], Awaitable[bool]]) -> None:
    """Open the store and do a command's work; exit status 1 unless all is well."""
    from holdfast.cli.opening import open_store

    output = Output(as_json=as_json)

    async def run() -> bool:
        async with open_store(settings) as opened:
            return await work(opened, output)

    run_to_end(run())


def run_to_end(work: Coroutine[Any, Any, bool]) -> None:
    if not uvloop.run(work):
        raise SystemExit(1)


@click.command()
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@json_option
def status(settings: Settings, as_json: bool) -> None:
    """Say how the store is: its drives, what needs repair, what is under-protected."""
    from holdfast.cli.status import show_status

    run_with_store(settings, as_json, show_status)


@click.command()
@with_settings(*OPENING_OPTIONS)
@json_option
def scrub(settings: Settings, as_json: bool) -> None:
    """Read and check every fragment on every drive now.

    What is bad is told to repair. Interrupted, the next call goes on where this one stopped. The server does the same
    in the background, over a month.
    """
    from holdfast.cli.repair import scrub as work

    run_with_store(settings, as_json, work)


@click.command()
@with_settings(*OPENING_OPTIONS)
@json_option
def repair(settings: Settings, as_json: bool) -> None:
    """Look up every block now, and mend what lacks fragments or has them in the wrong place.

    Does at full speed what the server does by itself. May be interrupted and called again at any time.
    """
    from holdfast.cli.repair import repair as work

    run_with_store(settings, as_json, work)


@click.command()
@with_settings(*OPENING_OPTIONS)
@click.option("--repair", "mending", is_flag=True, help="Mend what can be mended.")
@click.option("--read", is_flag=True, help="Read every fragment and all of the metadata too.")
@json_option
def fsck(settings: Settings, as_json: bool, mending: bool, read: bool) -> None:
    """Check that everything is where it should be, and that nothing else lies about.

    Prints each finding, and the objects that cannot be read now. Changes nothing without --repair, but that --read
    mends damage in the metadata that it comes upon.
    """
    from holdfast.cli.repair import check

    run_with_store(settings, as_json, lambda opened, output: check(opened, output, read=read, mending=mending))


@click.group()
def drive() -> None:
    """List, add, replace and drain drives."""


@drive.command("list")
@with_settings(*OPENING_OPTIONS)
@json_option
def drive_list(settings: Settings, as_json: bool) -> None:
    """List the store's drives."""
    from holdfast.cli.drives import list_drives

    run_with_store(settings, as_json, list_drives)


@drive.command("add")
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@click.argument("new", type=PATH, metavar="NEW_DIR")
@click.option("--also", "more", type=PATH, multiple=True, metavar="NEW_DIR", help="Another new drive, in one change.")
@json_option
def drive_add(settings: Settings, as_json: bool, new: Path, more: tuple[Path, ...]) -> None:
    """Add the empty directory NEW_DIR as a drive to the store of DIR...

    A running server takes it up within seconds and moves data there. With more drives, a stronger code may become the
    default for new objects: what is kept by the old one is under-protected until `recode`.
    """
    from holdfast.cli.drives import add_drives

    directories = [path.absolute() for path in (new, *more)]
    run_with_store(settings, as_json, lambda opened, output: add_drives(opened, output, directories))


@drive.command("replace")
@with_settings(*OPENING_OPTIONS)
@click.argument("old", metavar="OLD")
@click.argument("new", type=PATH, metavar="NEW_DIR")
@click.option("--force", is_flag=True, help="Give OLD up although it answers.")
@json_option
def drive_replace(settings: Settings, as_json: bool, old: str, new: Path, force: bool) -> None:
    """Replace the lost drive OLD by one in the empty directory NEW_DIR, which may be the same.

    OLD is the drive's id, its beginning, or the directory where it was. What it held is made again from the others.
    """
    from holdfast.cli.drives import replace_lost

    directory = new.absolute()
    run_with_store(settings, as_json, lambda opened, output: replace_lost(opened, output, old, directory, force=force))


@drive.command("drain")
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@click.argument("name", metavar="DRIVE")
@json_option
def drive_drain(settings: Settings, as_json: bool, name: str) -> None:
    """Bring all data off DRIVE, then let go of it.

    DRIVE is the drive's id, its beginning, or its directory. Interrupted, the same command goes on. When it is done
    it says that the drive can be removed.
    """
    from holdfast.cli.drives import drain

    run_with_store(settings, as_json, lambda opened, output: drain(opened, output, name))


@click.command()
@with_settings("code", "copies", "matrix", *OPENING_OPTIONS)
@json_option
def recode(settings: Settings, as_json: bool) -> None:
    """Write existing objects anew with another code: the one that is given, else the default for so many drives.

    Reads go on meanwhile. The old blocks are deleted after the grace. Interrupted, the server goes on with it, and so
    does the same command.
    """
    from holdfast.cli.recoding import recode as work

    run_with_store(settings, as_json, work)


COMMANDS = (status, scrub, repair, fsck, drive, recode)
