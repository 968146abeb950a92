"""Stage: metrics, cases, maps and masks -> one HTML page, the ranked Markdown table and figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from flipside.core.files import atomic_file
from flipside.core.params import announce, load_section, stage_main
from flipside.report.figures import ReportParams, rank_metric, write_figures
from flipside.report.html import render, run_line
from flipside.report.inputs import read_inputs
from flipside.report.tables import markdown_table, plain_table

REPORTS = Path("reports")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters and artifacts.
    params = load_section("report", ReportParams)
    announce("report", report=params)
    inputs = read_inputs(params.policy, params.controls)
    rank_by = rank_metric(inputs, params)

    # Outputs.
    write_figures(REPORTS / "figures", inputs, params)
    pages = {"report.html": render(inputs, params),
             "metrics.md": markdown_table(inputs.metrics, rank_by, params.controls, run_line(inputs))}
    for name, text in pages.items():
        with atomic_file(REPORTS / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    print(f"\n{plain_table(inputs.metrics, rank_by, params.controls)}\n\nreport: {(REPORTS / 'report.html').resolve()}")


if __name__ == "__main__":
    stage_main(main)
