"""Building the recorder, and running programs under it."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent / "recorder" / "recorder.c"


def build_recorder(directory: Path) -> Path:
    """The recorder as a shared library in `directory`. Skips the test, and says why, where there is no C compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("not run: power cuts. There is no C compiler (cc) to build the recorder with")
    library = directory / "recorder.so"
    if not library.exists():
        flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2"]
        subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE), "-ldl"], check=True)
    return library


def recording_environment(library: Path, trace: Path, roots: Sequence[Path]) -> dict[str, str]:
    """Variables under which a program is recorded."""
    return {
        "LD_PRELOAD": str(library),
        "HOLDFAST_RECORD_TRACE": str(trace),
        "HOLDFAST_RECORD_ROOTS": ":".join(str(root.resolve()) for root in roots),
    }
