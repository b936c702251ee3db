"""Plants the bug that PLANTED_BUG names into this process. Only on the path of servers under test."""

import os

if name := os.environ.get("PLANTED_BUG"):
    from tests.simulation.planted.bugs import BUGS

    BUGS[name].plant()
