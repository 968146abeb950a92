"""Shared by all tests."""

import pytest
import torch


@pytest.fixture(autouse=True)
def process_settings():
    """A Runtime sets flush-to-zero and the thread count for the whole process: put both back after each test."""
    threads = torch.get_num_threads()
    yield
    torch.set_flush_denormal(False)
    torch.set_num_threads(threads)
