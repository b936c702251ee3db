"""For all tests: what they keep in memory is in one directory, which the first process of a run makes and removes; and
no example of a property has a deadline, for that would be a test of how busy the machine is."""

import os

import pytest
from hypothesis import settings

from holdfast.testing.shared_memory import ROOT, VARIABLE, TestRun

settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

_RUN = pytest.StashKey[TestRun]()


def pytest_configure(config: pytest.Config) -> None:
    if VARIABLE not in os.environ and ROOT.is_dir():
        run = config.stash[_RUN] = TestRun()
        os.environ[VARIABLE] = str(run.path)


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash.get(_RUN, None)
    if run is not None:
        del os.environ[VARIABLE]
        run.close()
