"""Bugs planted on purpose, one at a time, to see that the proofs find them.

Nothing in the shipped code knows of this. `site/sitecustomize.py` is on PYTHONPATH of a server under test and nowhere
else; it replaces one function in every process of that server before the program starts.
"""

import os
from pathlib import Path

VARIABLE = "PLANTED_BUG"

_HERE = Path(__file__).parent


def planted(name: str) -> dict[str, str]:
    """Variables under which every Python process carries the bug `name`."""
    paths = [str(_HERE / "site"), str(_HERE.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {VARIABLE: name, "PYTHONPATH": ":".join(paths)}
