"""What a process asks of its machine."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource
from holdfast.cli.system import allow_many_files
resource.setrlimit(resource.RLIMIT_NOFILE, ({now}, {most}))
allow_many_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""


@pytest.mark.parametrize(("now", "most", "after"), [(100, 900, 900), (900, 900, 900), (64, 128, 128)])
def test_a_process_may_open_as_many_files_as_it_is_allowed(now: int, most: int, after: int) -> None:
    script = SCRIPT.format(now=now, most=most)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(after), str(most)]
