"""A bucket with millions of keys, half of them with an older version, beside an empty one: nothing is much slower."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest

KEYS_COUNT = int(os.environ.get("HOLDFAST_MANY_KEYS", "10000000"))

# How much slower a full bucket may be.
RATIO_MAX = 1.3


@pytest.mark.alone
@pytest.mark.soak
def test_a_full_bucket_is_hardly_slower_than_an_empty_one(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    targets = ("--target", "empty=6+0", "--target", f"full=6+{KEYS_COUNT}")
    rows = ("--rows", "list,put-4k,get-4k,delete", "--repeat", "7", "--seconds", "4")
    places = ("--scratch", str(tmp_path), "--json", str(figures))
    subprocess.run([sys.executable, "-m", "bench.load", *targets, *rows, *places], check=True)
    found: dict[str, dict[str, list[dict[str, Any]]]] = json.loads(figures.read_text())["rows"]
    for row, results in found.items():
        pairs = zip(results["empty"], results["full"], strict=True)
        ratio = median(empty["rate"] / full["rate"] for empty, full in pairs)
        print(f"{row}: a bucket of {KEYS_COUNT} keys takes {ratio:.2f} of the time of an empty one")
        assert ratio < RATIO_MAX, row
        assert not any(result["failures"] for result in results["full"]), row
