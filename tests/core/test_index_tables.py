"""Names come back from a table as they were written, whatever they look like."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flipside.core.index_tables import TEXT_COLUMNS, read_index

NAMES = ["NA", "N/A", "null", "NULL", "nan", "NaN", "None", "", "007", "123", "123.0", "1e5", "inf", "True",
         "M\u00fcller", "a,b", 'a"b', "a\nb", " x ", r"M\xfcller", "#", "<NA>", "-"]


@pytest.mark.parametrize("column", TEXT_COLUMNS)
def test_names_stay_names(tmp_path, column):
    numbers = np.where(np.arange(len(NAMES)) % 3, np.arange(len(NAMES)) / 7, np.nan)
    pd.DataFrame({column: NAMES, "count": range(len(NAMES)), "value": numbers}).to_csv(tmp_path / "t.csv", index=False)
    found = read_index(tmp_path / "t.csv")
    assert found[column].tolist() == NAMES
    assert found["count"].tolist() == list(range(len(NAMES))) and found["count"].dtype == np.int64
    np.testing.assert_allclose(found["value"], numbers)


def test_the_project_reads_its_tables_through_it_alone():
    """pandas' own defaults take a patient called NA for nothing."""
    root = Path(__file__).parents[2]
    left = {file.relative_to(root).as_posix(): text.count("read_csv(") for folder in ("flipside", "stages")
            for file in sorted((root / folder).rglob("*.py")) if "read_csv(" in (text := file.read_text())}
    assert left == {"flipside/core/index_tables.py": 2, "flipside/cli/review_sheet/grades.py": 1,  # text, nothing is NA
                    "flipside/report/inputs.py": 3, "stages/evaluate.py": 1}  # curves: numbers alone
