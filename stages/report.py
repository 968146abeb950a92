"""Stage: metrics, cases, maps and masks -> one HTML page, the ranked Markdown table and figures."""

from __future__ import annotations

import argparse
from pathlib import Path

from flipside.core.files import atomic_file
from flipside.core.params import announce, load_section, stage_main, value_at
from flipside.report.figures import write_figures
from flipside.report.html import render_page
from flipside.report.inputs import read_inputs
from flipside.report.params import ReportParams
from flipside.report.run import describe_run
from flipside.report.sureness import sureness_table
from flipside.report.tables import markdown_table, plain_table

REPORTS = Path("reports")


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()

    # Parameters and artifacts.
    params = load_section("report", ReportParams)
    announce("report", report=params)
    inputs = read_inputs(params)

    # The page and the tables.
    page = render_page(inputs)
    markdown = markdown_table(inputs.metrics, inputs.rank_by, params.controls, describe_run(inputs), inputs.trainings,
                              inputs.ignored_trainings)
    confidence = value_at(inputs.parameters, "evaluate.confidence")
    if sure := sureness_table(inputs.metrics, inputs.rank_by, inputs.trainings, confidence):
        markdown += f"\n## Which differences stand\n\n{sure}"
    plain = plain_table(inputs.metrics, inputs.rank_by, params.controls, inputs.trainings)

    # Outputs.
    write_figures(REPORTS / "figures", inputs)
    for name, text in (("report.html", page), ("metrics.md", markdown)):
        with atomic_file(REPORTS / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    print(f"\n{plain}\n\nreport: {(REPORTS / 'report.html').resolve()}")


if __name__ == "__main__":
    stage_main(main)
