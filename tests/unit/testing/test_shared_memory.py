"""What dead runs left is cleared, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.testing.shared_memory import PREFIX, VARIABLE, TestRun, clear_dead, in_memory

RUN = "import sys; from pathlib import Path; from holdfast.testing.shared_memory import TestRun\n" \
      "run = TestRun(Path(sys.argv[1])); print(run.path, flush=True); sys.stdin.read()"  # fmt: skip


def start(root: Path) -> tuple[subprocess.Popen[str], Path]:
    """A run in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_run_that_was_killed_is_cleared_by_the_next(tmp_path: Path) -> None:
    process, path = start(tmp_path)
    try:
        (path / "server").mkdir()
        clear_dead(tmp_path)
        assert (path / "server").is_dir(), "its run is alive"
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    others = tmp_path / "holdfast-of-somebody"
    others.mkdir()
    run = TestRun(tmp_path)
    assert set(tmp_path.iterdir()) == {run.path, others}
    run.close()
    assert list(tmp_path.iterdir()) == [others]


def test_a_directory_that_is_being_made_stays(tmp_path: Path) -> None:
    made = tmp_path / f"{PREFIX}x"
    made.mkdir()
    clear_dead(tmp_path)
    assert made.is_dir()
    os.utime(made, (0, 0))
    clear_dead(tmp_path)
    assert not made.exists()


def test_directories_of_a_run_are_inside_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert in_memory("server").parent == tmp_path
    monkeypatch.delenv(VARIABLE)
    alone = in_memory("server")
    assert alone.name.startswith("holdfast-server-")
    alone.rmdir()
