"""`sos quickstart DIR`: the programs that the original's Quick Start names, as shims of ours, so that it runs word for
word."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from holdfast.core.errors import AlreadyExists

SHIMS = {
    "golang/blob_server": "blob-server",
    "golang/api_server": "api-server",
    "bin/replicate": "replicate",
}

_MARK = "# Made by `sos quickstart`."

_MAKEFILE = f"""{_MARK} There is nothing to compile: the programs are there.
.PHONY: all
all: blob_server api_server

blob_server api_server:
\t@test -x $@
"""


def make(directory: str) -> Iterator[str]:
    """Write the shims, and say what was written. What is there already and not ours is left. Raises AlreadyExists."""
    root = Path(directory)
    python = shlex.quote(str(Path(sys.executable).absolute()))
    files = {
        root / name: f'#!/bin/sh\n{_MARK}\nexec {python} -m holdfast.cli.sos.main {command} "$@"\n'
        for name, command in SHIMS.items()
    }
    files[root / "golang/Makefile"] = _MAKEFILE
    for path in files:
        if path.exists() and _MARK not in path.read_text(errors="replace"):
            raise AlreadyExists(f"{path} is there already, and `sos quickstart` did not make it")
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        if path.name != "Makefile":
            path.chmod(0o755)
        yield f"made {path}"
