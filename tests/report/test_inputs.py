"""Artifacts that do not fit together, or are missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages import report


def test_tables_of_another_form_are_refused(project):
    pd.read_csv("reports/subgroups.csv").drop(columns="pixel_ap").to_csv("reports/subgroups.csv", index=False)
    with pytest.raises(ValueError, match="reports/subgroups.csv has no column pixel_ap.*dvc repro evaluate"):
        report.main()
    Path("reports/populations.csv").unlink()
    Path("reports/subgroups.csv").unlink()
    with pytest.raises(FileNotFoundError, match="subgroups.csv not found: it comes from evaluate"):
        report.main()


def test_artifacts_of_different_runs_are_refused(project):
    masks = np.load("data/masks/rise/val.npy")
    np.save("data/masks/rise/val.npy", masks[:-1])
    with pytest.raises(ValueError, match="data/masks/rise/val.npy has 11 masks for 12.*extract_masks@rise"):
        report.main()
    Path("data/masks/rise/val.npy").unlink()
    with pytest.raises(FileNotFoundError, match="rise/val.npy not found.*extract_masks@rise"):
        report.main()
