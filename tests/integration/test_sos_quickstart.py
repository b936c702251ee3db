"""The original's Quick Start runs word for word, on the ports that it names."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.sos_processes import listens

ROOT = Path(__file__).parents[2]
PORTS = (4001, 4002, 9991, 9992)


def private_network() -> list[str] | None:
    """What runs a command in a network of its own; None when the machine does not allow it."""
    prefix = ["unshare", "--map-root-user", "--net"]
    try:
        done = subprocess.run([*prefix, "true"], capture_output=True, check=False)
    except FileNotFoundError:
        return None
    return prefix if done.returncode == 0 else None


def test_word_for_word(tmp_path: Path) -> None:
    prefix = private_network()
    if prefix is None:
        taken = [port for port in PORTS if listens(port)]
        if taken:
            pytest.skip(f"no network of its own can be made here (unshare -rn), and these ports are taken: {taken}")
    done = subprocess.run(
        [*(prefix or []), sys.executable, "-m", "tests.integration.sos_quickstart", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "word for word" in done.stdout
