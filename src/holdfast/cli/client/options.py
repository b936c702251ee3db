"""Options that several commands of users take, each once, in the same words everywhere."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from holdfast.cli.client.session import connected

F = TypeVar("F", bound=Callable[..., Any])

RECURSIVE = click.option("--recursive", "-r", is_flag=True, help="Everything in a folder or directory.")
FOLLOW = click.option("--follow", is_flag=True, help="Take what symbolic links lead to; else they are left out.")
NO_CLOBBER = click.option("--no-clobber", "-n", is_flag=True, help="Replace nothing that is there.")
VERSION = click.option("--version-id", default="", metavar="ID", help="That version, not the latest.")
CONTENT_TYPE = click.option("--content-type", default="", metavar="TYPE", help="Content-Type, instead of a guess.")
METADATA = click.option("--metadata", multiple=True, metavar="NAME=VALUE", help="User metadata of the new objects.")
EXACT = click.option("--bytes", "exact", is_flag=True, help="Sizes in bytes.")
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")


def filtered(command: F) -> F:
    """--include and --exclude."""
    include = click.option("--include", multiple=True, metavar="PATTERN", help="Only names that match, as '*.jpg'.")
    exclude = click.option("--exclude", multiple=True, metavar="PATTERN", help="Not names that match; wins.")
    return include(exclude(command))


def transferring(*more: Callable[[Any], Any]) -> Callable[[F], F]:
    """What every command that brings objects from one place to another takes, and `more` of its own."""

    def wrap(command: F) -> F:
        wrapped: Any = connected(quiet=True, goes_on=True)(command)
        for option in reversed((RECURSIVE, filtered, NO_CLOBBER, *more)):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[no-any-return]

    return wrap
