"""What the tests of the report share."""

import sys

import numpy as np
import pytest

from tests.report.report_fixture import METHODS, build_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A finished run of made-up methods, into which the test has gone; `report` has no arguments."""
    build_project(tmp_path, np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24)), METHODS, ("coin",), ("random",))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    return tmp_path
