"""Shared by all tests."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch comes in; for the processes that tests start, too
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest  # noqa: E402
import torch  # noqa: E402

# The toy classifier and images, for the tests of all folders.
from tests.methods.conftest import classifier, planted, planted_nine, runtime, toy_models  # noqa: E402, F401

# First, so that no worker is left with them.
LONGEST = ("tests/test_pipeline.py", "tests/faults/test_killed.py", "tests/test_channels.py",
           "tests/cli/test_experiments.py", "tests/cli/test_repeat.py", "tests/test_ci.py", "tests/test_dvc_yaml.py",
           "tests/cli/test_profile.py", "tests/published/test_ablations.py")


def pytest_collection_modifyitems(items):
    """Whole files in the order of their names, the longest ones first."""
    def place(item):
        file = item.nodeid.partition("::")[0]
        return LONGEST.index(file) if file in LONGEST else len(LONGEST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def process_settings():
    """A Runtime sets flush-to-zero and the thread count for the whole process: put both back after each test."""
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
