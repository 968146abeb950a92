"""A series of experiments beside the published numbers: `python -m stages.evaluate.series_table appendix_a`.

Takes what `dvc exp show` has for a commit (see stages.evaluate.series), prints the table and writes it with every
single result to reports/ablations. Where our numbers go another way than the published ones, the table says so.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from stages.common.files import atomic_file
from stages.common.params import ParamsError, stage_main
from stages.evaluate.comparison import METRICS_FILE
from stages.evaluate.glossary import higher_is_better, label
from stages.evaluate.lockfile import DVC, run
from stages.evaluate.series import Series, edits, experiment_name, read_series
from stages.evaluate.sweep import results
from stages.evaluate.tables import MISSING, number

ALSO = ("iou_val", "pixel_ap", "fd_clf", "seconds_training")  # ours without a published counterpart, in every table
FOLDER = Path("reports/ablations")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("series", help="a file in experiments/, without its ending")
    parser.add_argument("--as-published", action="store_true")
    parser.add_argument("--rev", default="HEAD", help="the commit whose experiments are meant")
    arguments = parser.parse_args()
    series = read_series(arguments.series)
    shown = json.loads(run(*DVC, "exp", "show", "--json", "--rev", arguments.rev, "--hide-workspace"))
    found, notes = collect(shown, arguments.series, series, arguments.as_published)
    if found.empty:
        raise ParamsError(f"no result of {arguments.series} at {arguments.rev}: queue its rows with `python -m "
                          f"stages.evaluate.series {arguments.series}` and run them with `dvc exp run --run-all`. "
                          + "; ".join(notes))
    text = markdown(arguments.series, series, found, notes)
    name = arguments.series + ("_as_published" if arguments.as_published else "")
    for suffix, content in (("md", text), ("csv", found.to_csv(index=False))):
        with atomic_file(FOLDER / f"{name}.{suffix}") as file:
            file.write_text(content)
    print(text)


def collect(shown: list[dict[str, Any]], name: str, series: Series, as_published: bool
            ) -> tuple[pd.DataFrame, list[str]]:
    """One line per result (row, seed, experiment, the metrics shown), and notes on what is missing or does not fit.

    `shown` is what `dvc exp show --json` prints for one commit. An experiment counts by its name, and only if it was
    run with the row's values; a row that is the commit's params.yaml takes the commit's own numbers.
    """
    params = shown[0]["data"]["params"]["params.yaml"]["data"]
    runs, lines, notes = dict(results(shown)), [], []
    own = next(iter(runs))
    for row, spec in series.rows.items():
        before = len(lines)
        first = experiment_name(name, row, as_published, 0)
        further = {int(seed) for run in runs if (seed := run.removeprefix(f"{first}-seed")).isdigit()}
        for seed in (0, *sorted(further)):
            experiment = experiment_name(name, row, as_published, seed)
            if not edits(series, row, as_published, seed, params):
                experiment = own
            data = runs.get(experiment)
            if data is None:
                continue
            had = data["params"]["params.yaml"]["data"]
            metrics = (data["metrics"].get(METRICS_FILE, {}).get("data") or {}).get(spec.method)
            if other := edits(series, row, as_published, seed, had):
                notes.append(f"{experiment} was run with another {', '.join(other)}: left out")
            elif metrics is None:
                notes.append(f"{experiment} has no metrics of {spec.method}: left out")
            else:
                lines.append({"row": row, "seed": had["seed"] + seed, "experiment": experiment,
                              **{metric: metrics.get(metric) for metric in columns(series)}})
        if len(lines) == before:
            notes.append(f"{row}: no result yet")
    return pd.DataFrame(lines), notes


def columns(series: Series) -> list[str]:
    """Our metrics of a series: those beside a published number, then ALSO."""
    beside = [series.metric(row, column) for row in series.rows for column in series.measured_as]
    return list(dict.fromkeys([*beside, *ALSO]))


def markdown(name: str, series: Series, found: pd.DataFrame, notes: list[str]) -> str:
    """The table: ours (mean over seeds, least and greatest in brackets) beside the published, and where they part."""
    head = ["row", "", "method", "seeds"]
    for column in series.measured_as:
        head += [f"{column.upper()} ours", f"{column.upper()} published"]
    head += [label(metric) for metric in ALSO]
    lines = [f"# {series.title}", "", f"`python -m stages.evaluate.series {name}`, `dvc exp run --run-all -j 1`, "
             f"`python -m stages.evaluate.series_table {name}`", "", "| " + " | ".join(head) + " |",
             "| --- | --- | --- |" + " ---: |" * (len(head) - 3)]
    for row, spec in series.rows.items():
        own = found[found["row"] == row]
        cells = [row.replace("_", " "), spec.says, spec.method, str(len(own))]
        for column in series.measured_as:
            cells += [several(own, series.metric(row, column)), number(spec.published.get(column))]
        cells += [several(own, metric) for metric in ALSO]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Ours, computed as the publication's code does: " + ", ".join(
        f"{column.upper()} is `{metric}`" for column, metric in series.measured_as.items())
        + ". The last columns have no published counterpart."]
    for column in series.measured_as:
        metrics = {row: series.metric(row, column) for row in series.rows}
        lines += [f"In row {row.replace('_', ' ')} {column.upper()} is `{metric}`." for row, metric in metrics.items()
                  if metric != series.measured_as[column]]
        if not found[list(set(metrics.values()))].notna().any(axis=None):
            lines.append(f"{column.upper()} was not measured in these runs; their report says why.")
    lines += ["", *(f"* {line}" for line in [*disagreements(series, found), *notes])]
    return "\n".join(lines).rstrip() + "\n"


def several(own: pd.DataFrame, metric: str) -> str:
    """Mean over seeds, with the least and greatest of several."""
    values = own[metric].dropna().astype(float) if len(own) else []
    if not len(values):
        return MISSING
    spread = f" ({number(values.min())} to {number(values.max())})" if len(values) > 1 else ""
    return number(float(values.mean())) + spread


def disagreements(series: Series, found: pd.DataFrame) -> list[str]:
    """Steps from a row to the next of which ours goes up and the published down, or the other way round."""
    means = found.groupby("row")[columns(series)].mean(numeric_only=True)
    lines = []
    for before, after in [(spec.after, row) for row, spec in series.rows.items() if spec.after]:
        for column in series.measured_as:
            published = [series.rows[row].published.get(column) for row in (before, after)]
            metric, other = series.metric(after, column), series.metric(before, column)
            if None in published or metric != other or not {before, after} <= set(means.index) or metric not in means:
                continue
            ours = [means.loc[row, metric] for row in (before, after)]
            if (ours[1] - ours[0]) * (published[1] - published[0]) < 0:
                better = (ours[1] > ours[0]) == higher_is_better(metric)
                lines.append(f"{before} to {after}: {column.upper()} gets {'better' if better else 'worse'} here "
                             f"({number(float(ours[0]))} to {number(float(ours[1]))}), the other way round in the "
                             f"publication ({number(published[0])} to {number(published[1])})")
    return lines


if __name__ == "__main__":
    stage_main(main)
