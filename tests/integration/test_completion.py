"""Completion as the shells do it: what stands on the line when Tab was pressed, in each of the three."""

import fcntl
import os
import pty
import select
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import pytest

from holdfast.testing.server import Server
from tests.integration.conftest import make_directories
from tests.integration.user import Client

# A shell starts a program for each Tab, which asks a server: on a busy machine that takes its time.
TAB_MAX_SECONDS = 120.0

# Empties the line; and, by what SETUP binds it to, prints it.
KILL_LINE, SHOW_LINE = b"\x15", b"\x14"

# What each interactive shell is started with: nothing of whoever runs the tests.
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
SETUP = {
    "bash": r"""bind -x '"\C-t": echo "<$READLINE_LINE>"'; eval "$(holdfast completion bash)" """,
    "zsh": r"""show() { print -r -- "<$BUFFER>" }; zle -N show; bindkey '^T' show; """
    r"""autoload -U compinit; compinit -u -D; eval "$(holdfast completion zsh)" """,
}

needs = {
    shell: pytest.mark.skipif(
        shutil.which(shell) is None, reason=f"{shell} is not installed (on Debian: apt install {shell})"
    )
    for shell in ("bash", "zsh", "fish")
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    home = tmp_path_factory.mktemp("store")
    with Server(make_directories(home, 1), home / "log", options=("--sync", "relaxed", "--workers", "1")) as server:
        client = Client(server, tmp_path_factory.mktemp("home"))
        for bucket in ("films", "other"):
            client.s3.create_bucket(Bucket=bucket)
        client.put("films", {"folder/file": b"", "found": b"", "storm.mkv": b""})
        yield client


def environment(client: Client) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return client.environment(
        {"PATH": path, "TERM": "dumb", "PS1": "READY> ", "PROMPT": "READY> ", "HISTFILE": "/dev/null"}
    )


def assert_completed(ask: Callable[[], object], expected: object) -> None:
    """A server that takes more than a moment is not waited for, so that on a busy machine Tab is pressed again."""
    deadline = time.monotonic() + TAB_MAX_SECONDS
    while (answer := ask()) != expected and time.monotonic() < deadline:
        time.sleep(0.5)
    assert answer == expected


class Shell:
    """An interactive shell on a terminal of its own."""

    def __init__(self, name: str, client: Client) -> None:
        self._seen = b""
        self._process, self._terminal = pty.fork()
        if not self._process:
            os.execvpe(START[name][0], START[name], environment(client))
        # Wide enough that no line is folded.
        fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, b"\x32\x00\xc8\x00\x00\x00\x00\x00")
        self._type(SETUP[name].encode() + b"; echo DO''NE\n", b"DONE\r\n")
        self._wait(b"READY> ")

    def tab(self, line: str) -> str:
        """What stands on the line when this was typed, Tabs included."""
        self._type(KILL_LINE + line.encode() + SHOW_LINE, b">\r\n")
        return self._before.decode().rpartition("<")[2]

    def _type(self, typed: bytes, until: bytes) -> None:
        os.write(self._terminal, typed)
        self._wait(until)

    def _wait(self, until: bytes) -> None:
        deadline = time.monotonic() + TAB_MAX_SECONDS
        while until not in self._seen:
            readable, _, _ = select.select([self._terminal], [], [], max(0.0, deadline - time.monotonic()))
            assert readable, (until, self._seen)
            self._seen += os.read(self._terminal, 4096)
        self._before, _, self._seen = self._seen.partition(until)

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._process, 0)


@pytest.mark.parametrize("name", [pytest.param("bash", marks=needs["bash"]), pytest.param("zsh", marks=needs["zsh"])])
def test_tab_on_a_terminal(client: Client, name: str, tmp_path: Path) -> None:
    (tmp_path / "clouds.jpg").write_bytes(b"")
    shell = Shell(name, client)
    try:
        for typed, expected in (
            ("holdfast mir\t", "holdfast mirror "),
            ("holdfast mirror --del\t", "holdfast mirror --delete "),
            # Had the word ended behind the bucket, the rest would be another.
            ("holdfast ls s3://fi\tst\t", "holdfast ls s3://films/storm.mkv "),
            (f"holdfast put {tmp_path}/clo\t", f"holdfast put {tmp_path}/clouds.jpg "),
        ):
            assert_completed(partial(shell.tab, typed), expected)
    finally:
        shell.close()


@needs["fish"]
def test_fish(client: Client, tmp_path: Path) -> None:
    """fish says itself what Tab would offer."""
    (tmp_path / "clouds.jpg").write_bytes(b"")
    lines = {
        "holdfast mir": ["mirror"],
        "holdfast mirror --del": ["--delete"],
        "holdfast ls s3://fi": ["s3://films/"],
        "holdfast ls s3://films/fo": ["s3://films/folder/", "s3://films/found"],
        f"holdfast put {tmp_path}/clo": [f"{tmp_path}/clouds.jpg"],
    }
    assert_completed(partial(offers, client, lines), list(lines.values()))


def offers(client: Client, lines: Iterable[str]) -> list[list[str]]:
    """What fish says of each line."""
    asking = "; ".join(f"complete -C '{line}'; echo END" for line in lines)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"holdfast completion fish | source; {asking}"],
        env=environment(client), capture_output=True, text=True, check=True, timeout=TAB_MAX_SECONDS,
    )  # fmt: skip
    assert done.stderr == ""
    return [
        [line.split("\t")[0] for line in part.splitlines() if line.strip()] for part in done.stdout.split("END\n")[:-1]
    ]
