"""The small project at three points of its way, each made once: prepared, trained and explained, finished."""

import pytest

from tests.faults.project import ROOM_OF, copied, done, write_project


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """Raw scans -> data/slices and data/truth."""
    root = tmp_path_factory.mktemp("prepared") / "project"
    root.mkdir()
    write_project(root)
    for name, room in ROOM_OF.items():
        if room == "prepare" and name != "simulate_scans":
            done(root, name)
    return root


@pytest.fixture(scope="session")
def explained(prepared, tmp_path_factory):
    """All that trains or explains, in a project that has data/slices and nothing else of the data."""
    root = copied(prepared, tmp_path_factory.mktemp("explained") / "project", "data/slices")
    for name, room in ROOM_OF.items():
        if room in ("classify", "generate", "explain"):
            done(root, name)
    return root


@pytest.fixture(scope="session")
def finished(prepared, explained, tmp_path_factory):
    """Everything, undisturbed."""
    root = copied(explained, tmp_path_factory.mktemp("finished") / "project", "data", "models", "reports")
    copied(prepared, root, "data/extracted", "data/filtered", "data/filtered_truth", "data/truth")
    for name, room in ROOM_OF.items():
        if room in ("segment", "evaluate"):
            done(root, name)
    return root
