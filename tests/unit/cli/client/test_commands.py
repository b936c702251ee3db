"""What the commands of users say of themselves, cost, and answer when called wrongly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from holdfast.cli.client.session import Session
from holdfast.cli.main import main

NOWHERE = {
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith(("AWS_", "HOLDFAST_")):
            monkeypatch.delenv(name)
    for name, value in NOWHERE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))


def said(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.output


def test_help_and_operators_do_not_pay_for_boto3() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from holdfast.cli.main import main\n"
        "for words in (['--help'], ['mirror', '--help'], ['completion', 'bash'], ['status']):\n"
        "    CliRunner().invoke(main, words)\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('boto3', 'botocore', 'urllib3')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_users_and_operators_find_their_own() -> None:
    _, text = said("--help")
    users, operators = text.split("Commands for operators")
    for name in (
        "ls",
        "put",
        "get",
        "cat",
        "cp",
        "mv",
        "rm",
        "stat",
        "du",
        "tree",
        "mirror",
        "share",
        "bucket",
        "uploads",
    ):
        assert f"\n  {name} " in users
    for name in ("serve", "status", "doctor", "drive"):
        assert f"\n  {name} " in operators


def test_without_keys_it_says_what_to_set() -> None:
    status, text = said("ls", "--endpoint-url", "http://127.0.0.1:1")
    assert status == 1
    assert "no access key was found: set AWS_ACCESS_KEY_ID" in text


def test_an_endpoint_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")
    status, text = said("ls", "--endpoint-url", "http://127.0.0.1:1")
    assert status == 1
    assert "http://127.0.0.1:1 cannot be reached (Connection refused): check --endpoint-url" in text
    status, text = said("ls", "--endpoint-url", "127.0.0.1:1")
    assert status == 1
    assert "write http://HOST:PORT" in text
    status, text = said("ls", "--profile", "hoem")
    assert status == 1
    assert "list-profiles" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ls", "./x"), "names no bucket: write s3://BUCKET/KEY"),
        (("cp", "a", "b"), "both on this machine"),
        (("put", "s3://a-b-c/d", "s3://abc/"), "`holdfast cp` copies within S3"),
        (("put", "a", "b", "s3://abc/name"), "end it in a slash"),
        (("get", "s3://abc/"), "--recursive takes everything in it"),
        (("get", "s3://abc/a", "s3://abc/b", "-"), "standard output as the target"),
        (("put", "-", "s3://abc/"), "standard input has no name"),
        (("mirror", "a", "b"), "both on this machine"),
        (("mirror", "s3://abc/a", "s3://abc/a/b"), "inside of each other"),
        (("cp", "-r", "s3://abc", "s3://abc/x"), "copied into itself"),
        (("rm", "s3://abc/x/"), "--recursive deletes everything in it"),
        (("rm", "-r", "s3://abc/x"), "say --yes"),
        (("cat", "s3://abc"), "is a bucket"),
        (("cat", "--range", "9", "s3://abc/x"), "FIRST-LAST"),
        (("cat", "--range", "1-" + "9" * 5000, "s3://abc/x"), "FIRST-LAST"),
        (("share", "--expires", "8d", "s3://abc/x"), "7 days"),
        (("put", "--metadata", "x", "a", "s3://abc"), "NAME=VALUE"),
        (("bucket", "create", "s3://abc/x"), "more than a bucket"),
        (("uploads", "abort", "s3://abc"), "--recursive aborts everything in it"),
        (("uploads", "abort", "-r", "--upload-id", "x", "s3://abc"), "of one object"),
        (("uploads", "abort", "-r", "s3://abc"), "say --yes"),
        (("uploads", "abort", "--older-than", "x", "s3://abc/a"), "is not a duration"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_done(
    arguments: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint is not there: whatever would ask it first fails with another error."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "B")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    status, text = said(*arguments)
    assert status in (1, 2)
    assert words in text
    assert "cannot be reached" not in text


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    status, script = said("completion", shell)
    assert status == 0
    assert "_HOLDFAST_COMPLETE" in script


def complete(*lines: str) -> list[list[str]]:
    """What bash would offer behind each line: the script itself, in a bash of its own."""
    path = str(Path(sys.executable).parent)
    script = f"""
        PATH={path}:$PATH; eval "$(holdfast completion bash)"; compopt() {{ :; }}
        for COMP_LINE in "$@"; do
            COMP_POINT=${{#COMP_LINE}}; COMPREPLY=()
            _holdfast_completion holdfast; echo "${{COMPREPLY[*]}}"
        done
    """
    done = subprocess.run(["bash", "-c", script, "bash", *lines], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return [line.split() for line in done.stdout.splitlines()]


def test_bash_completes_commands_and_options() -> None:
    assert complete("holdfast mi", "holdfast bucket ver", "holdfast mirror --del") == [
        ["mirror"], ["versioning"], ["--delete"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "goes_on"),
    [
        (["ls"], False),
        (["du", "s3://bucket"], False),
        (["put", __file__, "s3://bucket/k"], True),
        (["mirror", ".", "s3://bucket"], True),
        (["rm", "s3://bucket/k"], True),
    ],
)
def test_what_ctrl_c_promises(monkeypatch: pytest.MonkeyPatch, arguments: list[str], goes_on: bool) -> None:
    def interrupted(self: Session) -> None:
        raise KeyboardInterrupt

    def leave(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(Session, "connect", interrupted)
    monkeypatch.setattr(os, "_exit", leave)
    status, output = said(*arguments)
    assert status == 130
    assert ("Interrupted" in output, "goes on" in output) == (True, goes_on)
