"""The small project at three points of its way, each made once: prepared, trained and explained, finished."""

import pytest

from tests.faults.project import MEASURING, PREPARATION, copied, done, write_project
from tests.test_dvc_yaml import BLIND, TAUGHT


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Raw scans -> data/slices and data/truth, and what learns from the truth."""
    root = tmp_path_factory.mktemp("prepared") / "project"
    root.mkdir()
    write_project(root)
    for name in (*PREPARATION, *TAUGHT):
        done(root, name)
    return root


@pytest.fixture(scope="session")
def explained(prepared, tmp_path_factory):
    """All else that trains, and all that explains, in a project that has data/slices and nothing else of the data."""
    root = copied(prepared, tmp_path_factory.mktemp("explained") / "project", "data/slices", "models", "reports")
    for name in BLIND:
        done(root, name)
    return root


@pytest.fixture(scope="session")
def finished(prepared, explained, tmp_path_factory):
    """Everything, undisturbed."""
    root = copied(explained, tmp_path_factory.mktemp("finished") / "project", "data", "models", "reports")
    copied(prepared, root, "data/extracted", "data/filtered", "data/filtered_truth", "data/filtered_clean",
           "data/truth", "data/clean")
    for name in MEASURING:
        done(root, name)
    return root
