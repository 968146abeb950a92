"""The pipeline's own CSV tables, read back as they were written."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

TEXT_COLUMNS = ("slice_id", "source_slice_id", "scan_id", "patient_id", "source_file", "sha256", "split", "given_split",
                "site", "method", "example")
MISSING = ["", "nan", "NaN"]  # what stands for a number that isn't there


def read_index(file: Path | str) -> pd.DataFrame:
    """A table in which names are text whatever they look like: a patient NA, null or 007 stays that, "" stays ""."""
    columns = list(pd.read_csv(file, nrows=0).columns)
    return pd.read_csv(file, dtype={name: str for name in columns if name in TEXT_COLUMNS}, keep_default_na=False,
                       na_values={name: MISSING for name in columns if name not in TEXT_COLUMNS})
