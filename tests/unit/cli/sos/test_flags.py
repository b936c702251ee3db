"""Flags as Go's flag package takes them."""

import click
import pytest
from click.testing import CliRunner

from holdfast.cli.sos.flags import GoCommand, flag, switch
from holdfast.cli.sos.main import main


@click.command(cls=GoCommand)
@flag("min-copies", default=2)
@flag("store", default="data")
@switch("verbose", "-v", help="")
def command(min_copies: int, store: str, verbose: bool) -> None:
    click.echo(f"{min_copies} {store} {verbose}")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "2 data False"),
        (["-min-copies", "3", "-store", "x", "-verbose"], "3 x True"),
        (["--min-copies=3", "-store=a=b", "--verbose"], "3 a=b True"),
        (["-v"], "2 data True"),
        (["-verbose=true", "-min-copies=1"], "1 data True"),
        (["--verbose=false"], "2 data False"),
        (["-v=TRUE"], "2 data True"),
        (["-store", "-x"], "2 -x False"),
    ],
)
def test_flags(arguments: list[str], said: str) -> None:
    done = CliRunner().invoke(command, arguments)
    assert (done.exit_code, done.output.strip()) == (0, said)


@pytest.mark.parametrize("arguments", [["-port", "1"], ["-min-copies", "x"], ["-verbose=maybe"], ["-store"], ["rest"]])
def test_what_is_no_flag(arguments: list[str]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2


@pytest.mark.parametrize("name", ["blob-server", "blob_server", "api-server", "api_server", "replicate", "version"])
@pytest.mark.parametrize("help", ["-h", "-help", "--help"])
def test_every_command_has_help(name: str, help: str) -> None:
    done = CliRunner().invoke(main, [name, help])
    assert done.exit_code == 0
    assert "Usage:" in done.output


def test_the_flags_of_the_original_are_there() -> None:
    wanted = {
        "blob-server": ["-host", "-port", "-store"],
        "api-server": ["-api-host", "-upload-port", "-download-port", "-blob-server", "-dump", "-verbose"],
        "replicate": ["-v", "-verbose", "-min-copies", "-daemon", "-blob-server"],
        "version": ["-verbose"],
    }
    for name, flags in wanted.items():
        found = main.get_command(click.Context(main), name)
        assert found is not None
        assert set(flags) <= {option for parameter in found.params for option in parameter.opts}
    defaults = {"-host": "127.0.0.1", "-port": 3001, "-store": "data"}
    blob_server = main.commands["blob-server"]
    assert {parameter.opts[0]: parameter.default for parameter in blob_server.params[:3]} == defaults
