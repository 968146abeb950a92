"""The small project at three points of its way, each made once: prepared, trained and explained, finished."""

import pytest

from tests.faults.project import MEASURING, PREPARATION, copied, done, write_project
from tests.shared import made_once
from tests.test_dvc_yaml import BLIND, TAUGHT


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Raw scans -> data/slices and data/truth, and what learns from the truth."""
    def make(root):
        write_project(root)
        for name in (*PREPARATION, *TAUGHT):
            done(root, name)

    return made_once(tmp_path_factory, "prepared", make)


@pytest.fixture(scope="session")
def explained(prepared, tmp_path_factory):
    """All else that trains, and all that explains, in a project that has data/slices and nothing else of the data."""
    def make(root):
        copied(prepared, root, "data/slices", "models", "reports")
        for name in BLIND:
            done(root, name)

    return made_once(tmp_path_factory, "explained", make)


@pytest.fixture(scope="session")
def finished(prepared, explained, tmp_path_factory):
    """Everything, undisturbed."""
    def make(root):
        copied(explained, root, "data", "models", "reports")
        copied(prepared, root, "data/extracted", "data/filtered", "data/filtered_truth", "data/filtered_clean",
               "data/truth", "data/clean")
        for name in MEASURING:
            done(root, name)

    return made_once(tmp_path_factory, "finished", make)
