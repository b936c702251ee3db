"""What the commands say of themselves, and how they end when called wrongly."""

import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from holdfast.cli.client import USER_COMMANDS
from holdfast.cli.main import main
from holdfast.cli.sos.main import main as sos

# Of a terminal that nobody has made wider.
TERMINAL_COLUMNS = 80


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    """Every command, hidden ones left out."""
    found: list[tuple[tuple[str, ...], click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
        elif not command.hidden:
            found.append(((*path, name), command))
    return found


USERS = {command.name for command in USER_COMMANDS}
ALL = commands(main)
# Those that open a store.
STORE = [(path, command) for path, command in ALL if path[0] not in USERS | {"doctor"}]


@pytest.mark.parametrize("main", [main, sos])
def test_lists_of_commands_are_not_cut_off(main: click.Group) -> None:
    groups = [(), *{path[:1] for path, _ in commands(main) if len(path) > 1}]
    for group in groups:
        said = CliRunner().invoke(main, [*group, "--help"], terminal_width=TERMINAL_COLUMNS).output
        assert "Commands" in said
        assert [line for line in said.splitlines() if line.endswith("...") and "Usage" not in line] == []


def test_what_an_operator_needs_is_there() -> None:
    assert {" ".join(path) for path, _ in ALL} >= {
        "serve", "status", "scrub", "repair", "fsck", "recode",
        "drive list", "drive add", "drive replace", "drive drain",
        "keyring backup", "keyring restore", "keyring verify", "keyring detach", "keyring attach", "keyring rotate",
        "metadata backup", "metadata restore",
        "key create", "key list", "key grant", "key disable", "key enable", "key delete",
    }  # fmt: skip


def test_help_loads_nothing_that_takes_long() -> None:
    """What only some commands need is imported when they run."""
    slow = {"asyncio", "awscrt", "boto3", "botocore", "cryptography", "lmdb", "msgspec", "rich", "uvloop"}
    program = f"import sys, holdfast.cli.main; print(*sorted({slow} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def examples(command: click.Command) -> list[str]:
    return [line.strip() for line in (command.help or "").splitlines() if line.strip().startswith("holdfast ")]


@pytest.mark.parametrize(("path", "command"), STORE, ids=[" ".join(path) for path, _ in STORE])
def test_examples_may_be_pasted(path: tuple[str, ...], command: click.Command) -> None:
    """Each is of the command that it stands below, and is understood; nothing is run."""
    for example in examples(command):
        words = shlex.split(example.partition("|")[0])
        assert tuple(words[1 : 1 + len(path)]) == path
        # As a shell does where there are two disks.
        given = [disk for word in words[1 + len(path) :] for disk in ([word, word] if word.endswith("*") else [word])]
        command.make_context(path[-1], given).close()
    assert examples(command)


@pytest.mark.parametrize(("path", "command"), ALL, ids=[" ".join(path) for path, _ in ALL])
def test_help_reads_well(path: tuple[str, ...], command: click.Command) -> None:
    said = CliRunner().invoke(main, [*path, "--help"])
    assert said.exit_code == 0
    assert "Example" in said.output or path[0] == "completion"
    assert path[0] in USERS or "DIR..." in said.output
    assert command.help is not None
    assert command.help.split("\n")[0].endswith(".")
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize("path", [path for path, _ in STORE if path[0] != "serve" and len(path) == 1])
def test_a_directory_without_a_drive_is_no_store(path: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = CliRunner().invoke(main, [*path, str(tmp_path / "empty")])
    assert said.exit_code == 1
    assert "is no Holdfast drive: mount the disk that belongs there" in said.output
    assert list((tmp_path / "empty").iterdir()) == []


def test_no_directory_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOLDFAST_DRIVES", raising=False)
    said = CliRunner().invoke(main, ["status"])
    assert said.exit_code == 1
    assert "name at least one directory" in said.output


def test_detach_wants_one_place_for_the_key(tmp_path: Path) -> None:
    said = CliRunner().invoke(main, ["keyring", "detach", str(tmp_path)])
    assert said.exit_code == 2
    assert "give one of" in said.output
