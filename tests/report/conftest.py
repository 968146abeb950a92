"""What the tests of evaluation and report share."""

import sys

import numpy as np
import pytest

from tests.report.report_fixture import METHODS, build_project
from tests.stages.project_of_two import write_project


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A finished run of made-up methods, into which the test has gone; `report` has no arguments."""
    build_project(tmp_path, np.random.default_rng(1).uniform(-1, 0.2, (12, 24, 24)), METHODS, ("coin",), ("random",))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["report"])
    return tmp_path


@pytest.fixture
def project_of_two(tmp_path, monkeypatch):
    """Maps of the methods `good` and `blind`, not yet masks; the test has gone into the project."""
    monkeypatch.chdir(tmp_path)
    write_project()
    return tmp_path
