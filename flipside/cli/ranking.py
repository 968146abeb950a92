"""The ranked table of the last run."""

from __future__ import annotations

from pathlib import Path

from flipside.core import paths
from flipside.core.files import read_json
from flipside.core.params import load_section


def ranking() -> None:
    """Print the ranked table of the last run.

    Also says what leads and where the report is. Writes nothing.
    """
    from flipside.report.inputs import needed
    from flipside.report.params import ReportParams
    from flipside.report.tables import answer, plain_table

    params = load_section("report", ReportParams)
    metrics = read_json(needed(paths.METRICS, "evaluate"))
    report = needed("reports/report.html", "report")
    ranked = any(params.rank_by in values for values in metrics.values())
    rank_by = params.rank_by if ranked else params.rank_by_without_masks
    print(plain_table(metrics, rank_by, params.controls))
    print("\n" + " ".join(answer(metrics, rank_by, params.controls)))
    print(f"\nreport: {Path(report).resolve()}")
