"""Report of models on a data set that they were not trained on: metrics.md, comparison.png and the printed table.

A step of flipside/cli/apply.py, which runs it in a workspace where every slice is test.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.cohort.windowing import window_text
from flipside.core.files import atomic_file, read_json
from flipside.core.params import announce, load_section, stage_main
from flipside.masks.extraction.thresholds import POLICIES, Cut, describe
from flipside.report.figures import draw_comparison, save_figure
from flipside.report.inputs import ReportInputs, needed, read_inputs
from flipside.report.params import ReportParams
from flipside.report.tables import MISSING, markdown_table, plain_table

REPORTS = Path("reports")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="data/filtered/manifest.json of the models' own run")
    source = read_json(needed(parser.parse_args().source, "split_patients"))

    # Parameters and artifacts.
    params = load_section("report", ReportParams)
    announce("report_applied", report=params)
    inputs = read_inputs(params)

    # Outputs.
    note = what_was_applied(inputs, source)
    text = markdown_table(inputs.metrics, inputs.rank_by, params.controls, note) + "\n" + threshold_table(inputs)
    with atomic_file(REPORTS / "metrics.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    if (inputs.cases["label"] == 1).any():
        save_figure(REPORTS / "comparison.png", draw_comparison(inputs))
    print(f"\n{note}\n\n{plain_table(inputs.metrics, inputs.rank_by, params.controls)}")


def what_was_applied(inputs: ReportInputs, source: dict) -> str:
    """Models, data, counts, window and the classifier's answers in one line of Markdown; no date."""
    filtered = inputs.manifests["data/filtered"]
    cases = inputs.cases.drop_duplicates("slice_id")  # label and f_x are the same for all methods
    lesion, healthy = cases[(cases["label"] == 1) & (cases["lesion_px"] > 0)], cases[cases["label"] == 0]
    abnormal = cases[cases["label"] == 1]
    window = f"window {window_text(filtered['window'])}"
    if filtered["window"] != source["window"]:
        window += f" (the models were trained with {window_text(source['window'])})"
    called = [f"{int((part['f_x'] >= CALLED_ABNORMAL).sum())} of {len(part)} {name} slices"
              for name, part in (("abnormal", abnormal), ("healthy", healthy)) if len(part)]
    return (f"Models trained on `{source['dataset']}`{' with synthetic anomalies' if source['anomalies'] else ''}, "
            f"applied unchanged to `{filtered['dataset']}`: {len(cases)} slices of {cases['patient_id'].nunique()} "
            f"patients, all of them test; {len(lesion)} lesion cases of {lesion['patient_id'].nunique()} patients, "
            f"{len(healthy)} healthy slices; {window}. The classifier calls {' and '.join(called)} abnormal. "
            f"The rule label_free and the thresholds fixed, otsu and val are carried over from `{source['dataset']}`, "
            f"oracle is best on `{filtered['dataset']}`.")


def threshold_table(inputs: ReportInputs) -> str:
    """The thresholds behind the masks (after morphology) in Markdown."""
    lines = ["## Thresholds", "", f"| method | {' | '.join(POLICIES)} |", f"| --- |{' ---: |' * len(POLICIES)}"]
    for name, result in inputs.results.items():
        lines.append(f"| {name} | {' | '.join(told(result.thresholds.get(policy)) for policy in POLICIES)} |")
    return "\n".join([*lines, "", f"{MISSING}: no such threshold without lesion masks.", ""])


def told(cut: Cut | None) -> str:
    """A threshold in a table's cell."""
    return MISSING if cut is None else describe(cut)


if __name__ == "__main__":
    stage_main(main)
