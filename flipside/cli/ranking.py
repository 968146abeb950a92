"""The ranked table of the last run."""

from __future__ import annotations

from pathlib import Path

from flipside.core import paths
from flipside.core.files import read_json
from flipside.core.params import load_section, read_datasets, read_params, value_at


def ranking() -> None:
    """Print the ranked table of the last run.

    Also says what leads and where the report is. Writes nothing.
    """
    from flipside.report.inputs import needed
    from flipside.report.params import ReportParams
    from flipside.report.sureness import sentences
    from flipside.report.tables import answer, plain_table
    from flipside.report.trainings import counting, read_trainings

    params = load_section("report", ReportParams)
    metrics = read_json(needed(paths.METRICS, "evaluate"))
    report = needed("reports/report.html", "report")
    ranked = any(params.rank_by in values for values in metrics.values())
    rank_by = params.rank_by if ranked else params.rank_by_without_masks
    parameters = read_params() | read_datasets()
    trainings, ignored = counting(read_trainings(), parameters, metrics, rank_by)
    print(plain_table(metrics, rank_by, params.controls, trainings))
    told = answer(metrics, rank_by, params.controls)
    told += sentences(metrics, rank_by, params.controls, trainings, value_at(parameters, "evaluate.confidence"))
    print("\n" + " ".join([*told, ignored]).rstrip())
    print(f"\nreport: {Path(report).resolve()}")
