"""Fuzz one target by coverage: libFuzzer learns which bytes lead further into the parser.

python -m tests.fuzz.run TARGET [libFuzzer's options, such as -max_total_time=60]

What fails ends the process with the traceback; the bytes are kept in a file that libFuzzer names. Works where atheris
has a wheel.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import atheris


def main(name: str, options: list[str]) -> None:
    with atheris.instrument_imports(include=["holdfast"], enable_loader_override=False):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    with TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        atheris.Setup([sys.argv[0], corpus, *options], target)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
