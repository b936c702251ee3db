"""Flags as Go's flag package has them: `-name value`, `-name=value`, `--name ...`, and `-name=false` for booleans."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

_TRUE, _FALSE = ("1", "t", "true"), ("0", "f", "false")


class GoCommand(click.Command):
    """A command whose boolean flags also take `=true` and `=false`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        switches = {
            name for parameter in self.params if isinstance(parameter, click.Option) and parameter.is_flag
            for name in parameter.opts
        }  # fmt: skip
        return super().parse_args(ctx, _without_values(args, switches))


def _without_values(args: Sequence[str], switches: set[str]) -> list[str]:
    kept: list[str] = []
    for arg in args:
        name, equals, value = arg.partition("=")
        if equals and name in switches and value.lower() in _TRUE:
            kept.append(name)
        elif not (equals and name in switches and value.lower() in _FALSE):
            kept.append(arg)
    return kept


def flag(name: str, **attributes: Any) -> Callable[[F], F]:
    """`-name` and `--name`; the parameter has the name with underscores."""
    return click.option(f"-{name}", f"--{name}", name.replace("-", "_"), **attributes)


def switch(name: str, *aliases: str, help: str) -> Callable[[F], F]:
    """A flag without a value."""
    names = [f"{dashes}{name}" for dashes in ("-", "--")]
    return click.option(*names, *aliases, name.replace("-", "_"), is_flag=True, help=help)
