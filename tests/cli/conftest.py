"""A project in which commands write."""

import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The committed parameters and profiles in a project of their own, in which the test works."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("params.yaml", "datasets.yaml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    monkeypatch.chdir(folder)
    return folder
