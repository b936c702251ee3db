"""The command line in README.md: one session on one store, each line as the programs printed it on a terminal.

`python -m bench.pictures` makes a store over six directories. A user keeps the documents of this repository and a tar
of this machine's Python library there: mirrors, looks around, is interrupted in the middle of the large one, goes on,
misspells a name. Then the operator looks in. What the terminal showed goes to standard output, or with `--write` into
README.md. Replaced are the port, which is whichever was free, and the user's home.
"""

import fcntl
import os
import pty
import re
import shutil
import struct
import sys
import sysconfig
import tarfile
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

from holdfast.testing.server import ACCESS_KEY, SECRET_KEY, Server

ROOT = Path(__file__).parents[1]
COLUMNS, ROWS = 120, 60

# In this order. What has a number is interrupted when so much of it has gone.
USER: tuple[tuple[str, float], ...] = (
    ("holdfast bucket create docs", 0),
    ("holdfast mirror docs s3://docs", 0),
    ("holdfast tree --depth 1 s3://docs", 0),
    ("holdfast mirror docs s3://docs", 0),
    ("holdfast cp library.tar s3://docs/backup/", 0.4),
    ("holdfast uploads list s3://docs", 0),
    ("holdfast cp library.tar s3://docs/backup/", 0),
    ("holdfast cat s3://doc/goals.md", 0),
)
OPERATOR: tuple[tuple[str, float], ...] = (("holdfast status data/drive1", 0),)

# Where README.md shows them: in the first block behind this line.
PLACES = {
    "\n## The command line\n": USER,
    "\nOnce it runs, another terminal can look in at any time.": OPERATOR,
}

_PROGRESS = re.compile(r"([0-9.]+)/([0-9.]+) [KMG]iB")
_CONTROL = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[=>]|[\r\n\x07]")


class Screen:
    """What a terminal shows after all that was sent to it: the few controls that progress is drawn with."""

    def __init__(self) -> None:
        self.lines: list[str] = [""]
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        at = 0
        for found in _CONTROL.finditer(text):
            self._put(text[at : found.start()])
            self._control(found)
            at = found.end()
        self._put(text[at:])

    def _put(self, text: str) -> None:
        line = self.lines[self._row].ljust(self._column)
        self.lines[self._row] = line[: self._column] + text + line[self._column + len(text) :]
        self._column += len(text)

    def _control(self, found: re.Match[str]) -> None:
        match found[0], found[2]:
            case "\r", _:
                self._column = 0
            case "\n", _:
                self._row += 1
                self.lines += [""] * (self._row + 1 - len(self.lines))
            case _, "A":
                self._row = max(0, self._row - int(found[1] or 1))
            case _, "K":
                self.lines[self._row] = "" if found[1] == "2" else self.lines[self._row][: self._column]

    def shown(self) -> list[str]:
        return [line.rstrip() for line in self.lines]


def run(command: str, interrupt_at: float, directory: Path, environment: dict[str, str]) -> Iterator[str]:
    """The lines that a command leaves on a terminal of its own, the command first."""
    process, terminal = pty.fork()
    if not process:
        os.chdir(directory)
        os.execvpe("sh", ["sh", "-c", f"exec {command}"], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    screen, sent, before = Screen(), b"", list[str]()
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # how Linux says that nobody is there any more
            break
        if not piece:
            break
        sent += piece
        # A character may be cut in two.
        text = sent.decode(errors="ignore")
        gone = [float(done) / float(whole) for done, whole in _PROGRESS.findall(text) if float(whole)]
        if interrupt_at and gone and gone[-1] >= interrupt_at:
            screen.feed(text)
            # The progress is wiped away at the end: it is shown as it stood there when Ctrl-C was pressed.
            before = [line for line in screen.shown() if _PROGRESS.search(line)]
            os.write(terminal, b"\x03")
            screen, interrupt_at = Screen(), 0
    os.close(terminal)
    os.waitpid(process, 0)
    screen.feed(sent.decode())
    yield f"$ {command}"
    yield from before
    yield from screen.shown()


def prepare(directory: Path) -> None:
    """The user's files."""
    shutil.copytree(ROOT / "docs", directory / "docs")
    with tarfile.open(directory / "library.tar", "w") as tar:
        tar.add(sysconfig.get_path("stdlib"), "library")


def sessions() -> dict[str, str]:
    """What each place of README.md is to show."""
    with tempfile.TemporaryDirectory(prefix="kelp-") as name:
        home = Path(name)
        drives = [home / "data" / f"drive{number}" for number in range(1, 7)]
        for drive in drives:
            drive.mkdir(parents=True)
        prepare(home)
        with Server(drives, home / "log") as server:
            environment = {
                "HOME": name,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "LANG": "C.UTF-8",
                "TERM": "xterm",
                "TZ": "UTC",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
                "AWS_ENDPOINT_URL": server.endpoint,
                "HOLDFAST_RUN_DIR": str(server.run_directory),
            }
            texts = {}
            for place, commands in PLACES.items():
                lines = [line for command, at in commands for line in run(command, at, home, environment)]
                text = "\n".join(lines).replace(server.endpoint, "http://127.0.0.1:9000")
                if commands is USER:
                    text = text.replace(name, "~")
                texts[place] = re.sub(r"\n{2,}(?=\$)", "\n", text).strip() + "\n"
            return texts


def main() -> None:
    texts = sessions()
    if "--write" not in sys.argv[1:]:
        sys.stdout.write("\n".join(texts.values()))
        return
    readme = ROOT / "README.md"
    document = readme.read_text()
    for place, text in texts.items():
        before, found, behind = document.partition(place)
        assert found, f"README.md has no {place!r}"
        opening, fence, block = behind.partition("```console\n")
        document = before + place + opening + fence + text + block[block.index("```") :]
    readme.write_text(document)


if __name__ == "__main__":
    main()
