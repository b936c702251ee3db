"""A bucket with millions of keys, half of them with an older version, beside an empty one: nothing is much slower."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from bench.fill import name
from bench.rows import BUCKET

from tests.integration.conftest import StartServer

KEYS_COUNT = int(os.environ.get("HOLDFAST_MANY_KEYS", "10000000"))

# How much slower a full bucket may be.
RATIO_MAX = 1.3


@pytest.mark.alone
def test_a_bucket_is_filled(start_server: StartServer) -> None:
    """Each key once, every second one with an older version, from several processes beside the server's."""
    server = start_server(1)
    with server.client() as client:
        client.make_bucket(BUCKET)
        places = ("--run-dir", str(server.run_directory), *map(str, server.directories))
        subprocess.run([sys.executable, "-m", "bench.fill", "--keys", "2401", "--processes", "2", *places], check=True)
        expected = [name(number) for number in range(2401)]
        assert list(client.list_all(BUCKET)) == expected
        versions = client.request("GET", f"/{BUCKET}", [("versions", ""), ("prefix", "ballast/00002/")]).body
        counts = Counter(re.findall(rb"<Key>([^<]*)</Key>", versions))
        assert counts == {key.encode(): 2 - number % 2 for number, key in enumerate(expected[2000:])}


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
