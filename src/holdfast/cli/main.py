"""`holdfast`: the commands. Each is a thin front over a module of its own."""

import sys
from typing import Any

import click

from holdfast import __version__
from holdfast.cli.client import USER_COMMANDS
from holdfast.cli.commands import COMMANDS, with_settings
from holdfast.cli.settings import OPTIONS, Settings
from holdfast.core.errors import HoldfastError


class _Commands(click.Group):
    """Errors that we raise on purpose become one line and exit status 1; anything else is a bug and shows itself."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HoldfastError as error:
            raise click.ClickException(str(error)) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists: who uses a store need not read past the commands of who runs one."""
        users = {command.name for command in USER_COMMANDS}
        names = self.list_commands(ctx)
        limit = formatter.width - 6 - max(map(len, names))
        for title, chosen in (
            ("Commands for users, of any S3 endpoint", [name for name in names if name in users]),
            ("Commands for operators, of a store's drives", [name for name in names if name not in users]),
        ):
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit)) for name in chosen])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="holdfast")
def main() -> None:
    """An object store that speaks S3, loses nothing it acknowledged, and seals what it spreads."""


@main.command()
@with_settings(*(option.name for option in OPTIONS))
def serve(settings: Settings) -> None:
    """Serve S3 over the drives DIR...; empty ones become a store.

    \b
    Examples:
      holdfast serve /mnt/disk*
      holdfast serve --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem /mnt/disk*
    """
    from holdfast.cli.serve import serve as run

    run(settings, click.echo)


@main.command()
@with_settings(*(option.name for option in OPTIONS))
def upkeep(settings: Settings) -> None:
    """Run upkeep until stopped. `serve` does so by itself; this is for stores that another ASGI server serves.

    \b
    Example:
      holdfast upkeep /mnt/disk*
    """
    from holdfast.cli.upkeep import run

    run(settings)


for command in (*COMMANDS, *USER_COMMANDS):
    main.add_command(command)


if __name__ == "__main__":
    sys.exit(main())
