"""`holdfast`: the commands. Each is a thin front over a module of its own."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from holdfast import __version__
from holdfast.cli import settings as settings_module
from holdfast.cli.settings import OPTIONS, Option, Settings
from holdfast.core.errors import HoldfastError

DRIVES_HELP = "DIR... are the store's drives, one directory each, best on disks of their own."


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of the settings table."""
    for option in reversed(OPTIONS):
        command = _click_option(option)(command)
    command = click.option("--config", metavar="FILE", envvar="HOLDFAST_CONFIG", help="Settings as TOML.")(command)
    return click.argument("drives", nargs=-1, type=click.Path(path_type=Path), metavar="DIR...")(command)


def _click_option(option: Option) -> Callable[[Callable[..., None]], Callable[..., None]]:
    described = f"{option.help}  [{option.variable}]"
    return click.option(f"--{option.name}", option.field, metavar=option.metavar, help=described)


def _load(drives: tuple[Path, ...], config: str | None, given: dict[str, Any]) -> Settings:
    named = {option.name: given[option.field] for option in OPTIONS}
    return settings_module.load(drives, named, os.environ, Path(config) if config else None)


class _Commands(click.Group):
    """Errors that we raise on purpose become one line and exit status 1; anything else is a bug and shows itself."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HoldfastError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="holdfast")
def main() -> None:
    """An object store: S3, durable and fast, end-to-end encrypted."""


@main.command()
@_with_settings
def serve(drives: tuple[Path, ...], config: str | None, **given: Any) -> None:
    """Serve S3 over the drives DIR..., making a store of them if they are empty."""
    from holdfast.cli.serve import serve as run

    run(_load(drives, config, given), click.echo)


@main.command(hidden=True)
def upkeep() -> None:
    """Run upkeep until stopped: `serve` starts this."""
    from holdfast.cli.upkeep import run

    run(settings_module.from_environment())


if __name__ == "__main__":
    sys.exit(main())
