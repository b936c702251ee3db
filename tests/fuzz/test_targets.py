"""Every parser bears what is near to what it takes; in the soak, what libFuzzer finds in its own time."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from tests.fuzz.targets import TARGETS, Target

# For each target, seconds.
FUZZ_SECONDS = int(os.environ.get("HOLDFAST_FUZZ_SECONDS", "30"))

# Bytes that mean something to many parsers.
TELLING = b'\r\n\0\xff/&=%<>:;"{['

MUTATIONS_COUNT = 150


def mutated(seed: bytes, random: Random) -> bytes:
    """The seed with some bytes changed, left out, doubled or put in."""
    data = bytearray(seed)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        until = min(len(data), at + random.randint(0, 8))
        match random.randrange(4):
            case 0:
                data[at:until] = random.randbytes(until - at)
            case 1:
                del data[at:until]
            case 2:
                data[at:at] = data[at:until]
            case _:
                data[at:at] = bytes((random.choice(TELLING),))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_taken_and_what_is_near_them_is_borne(name: str) -> None:
    target, random = TARGETS[name], Random(name)
    for seed in target.seeds:
        target.take(seed)
        for _ in range(MUTATIONS_COUNT):
            target(mutated(seed, random))
    target(b"")


def test_what_is_no_refusal_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        Target(lambda data: 1 // len(data), ())(b"")


@pytest.mark.soak
@pytest.mark.parametrize("name", TARGETS)
def test_by_coverage(name: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("not run: there is no wheel of atheris for this machine")
    options = [f"-max_total_time={FUZZ_SECONDS}", "-timeout=20", "-rss_limit_mb=1000", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, "-m", "tests.fuzz.run", name, *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=FUZZ_SECONDS + 120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "\tDONE " in done.stderr, done.stderr[-4000:]
