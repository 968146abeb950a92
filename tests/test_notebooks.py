"""The notebooks run from a clone as they are committed, and leave it as it was."""

import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]


def edits():
    """Of the clone's parameters and profiles, against its commit."""
    command = ["git", "status", "--porcelain", "--", "params.yaml", "datasets.yaml", "profiles"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("file", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda file: file.stem)
def test_it_runs_and_is_committed_without_outputs(file, tmp_path, monkeypatch):
    notebook = nbformat.read(file, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = edits()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(file.parent)}}).execute()
    assert edits() == before
    outputs = [output for cell in cells for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
    assert not any("Traceback" in output.get("text", "") for output in outputs)
    assert list(tmp_path.glob("own-*/project/reports/*.json"))  # where it says that it works
