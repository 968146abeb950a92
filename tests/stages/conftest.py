"""What the tests of several stages share."""

import pytest

from tests.stages.project_of_two import write_project


@pytest.fixture
def project_of_two(tmp_path, monkeypatch):
    """Maps of the methods `good` and `blind`, not yet masks; the test has gone into the project."""
    monkeypatch.chdir(tmp_path)
    write_project()
    return tmp_path
