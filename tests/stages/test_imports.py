"""Stages start quickly: what takes long to import is imported by the functions that use it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
SLOW = ("captum", "highdicom", "lpips", "pytorch_fid", "sklearn", "torchmetrics", "torchvision")
# What a single stage or command can't do without.
USED = {("flipside/classifiers/scores.py", "torchmetrics"), ("flipside/methods/checks/realism.py", "torchmetrics"),
        ("flipside/methods/checks/realism.py", "pytorch_fid"), ("flipside/methods/gradient.py", "captum"),
        ("flipside/prediction/dicom_objects.py", "highdicom")}


def imported_at_once(file):
    """The packages that a file imports when it is itself imported."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_what_is_slow_to_import_is_imported_where_it_is_used():
    found = {(file.relative_to(ROOT).as_posix(), package) for folder in ("flipside", "stages")
             for file in (ROOT / folder).rglob("*.py") for package in imported_at_once(file) if package in SLOW}
    assert found == USED
