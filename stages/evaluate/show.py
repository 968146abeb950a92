"""Print the ranked table of the last run and where its report lies. Reads only, so it can run at any time."""

from __future__ import annotations

from pathlib import Path

from stages.common.files import read_json
from stages.common.params import load_section, stage_main
from stages.evaluate.figures import ReportParams
from stages.evaluate.report_inputs import needed
from stages.evaluate.tables import answer, plain_table


def main() -> None:
    params = load_section("report", ReportParams)
    metrics = read_json(needed("reports/metrics.json", "evaluate"))
    report = needed("reports/report.html", "report")
    ranked = any(params.rank_by in values for values in metrics.values())
    rank_by = params.rank_by if ranked else params.rank_by_without_masks
    print(plain_table(metrics, rank_by, params.controls))
    print("\n" + " ".join(answer(metrics, rank_by, params.controls)))
    print(f"\nreport: {Path(report).resolve()}")


if __name__ == "__main__":
    stage_main(main)
