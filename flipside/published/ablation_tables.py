"""The results of a published ablation beside the published numbers, as Markdown.

Takes what `dvc exp show` lists for a commit (the rows are queued by `flipside ablations`). Where our numbers change in
the other direction than the published ones, the table says so.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from flipside.core import paths
from flipside.experiments.results import flat, parameters, results
from flipside.metrics.registry import higher_is_better, label, meaning
from flipside.published.ablations import Ablation, edited, edits, experiment_name, is_same, written
from flipside.report.tables import MISSING

# Ours without a published counterpart, in every table.
ALSO = ("iou_label_free", "iou_val", "pixel_ap", "fd_clf", "seconds_training")
NAMED = 6  # parameters that a note names before it only counts them


def collect(shown: list[dict[str, Any]], name: str, ablation: Ablation, as_published: bool
            ) -> tuple[pd.DataFrame, list[str]]:
    """One line per result (row, seed, experiment, profile, the metrics shown), and notes on what is missing or does
    not fit.

    `shown` is what `dvc exp show --json` prints for one commit. An experiment counts by its name, and only if it was
    run with the commit's parameters and the row's edits of them; a row that is the commit's params.yaml takes the
    commit's own numbers.
    """
    params = parameters(shown[0]["data"])
    runs = dict(results(shown))
    lines: list[dict[str, Any]] = []
    notes: list[str] = []
    own = next(iter(runs))
    for row, spec in ablation.rows.items():
        before = len(lines)
        first = experiment_name(name, row, as_published, 0)
        further = {int(end) for run in runs if (end := run.removeprefix(f"{first}-seed")).isdigit()}
        for seed in (0, *sorted(further)):
            experiment = experiment_name(name, row, as_published, seed)
            changes = edits(ablation, row, as_published, seed, params)
            if not changes:
                experiment = own
            data = runs.get(experiment)
            if data is None:
                continue
            had = parameters(data)
            metrics = (data["metrics"].get(paths.METRICS, {}).get("data") or {}).get(spec.method)
            if other := list(edits(ablation, row, as_published, seed, had)):
                notes.append(f"{experiment} was run with another {listed(other)}: left out")
            elif other := differing(had, edited(params, changes)):
                notes.append(f"{experiment} also differs in {listed(other)}: left out")
            elif metrics is None:
                notes.append(f"{experiment} has no metrics of {spec.method}: left out")
            else:
                lines.append({"row": row, "seed": had["seed"] + seed, "experiment": experiment,
                              "profile": had["profile"],
                              **{metric: metrics.get(metric) for metric in columns(ablation)}})
        if len(lines) == before:
            notes.append(f"{row}: no result yet")
    return pd.DataFrame(lines), notes


def differing(first: dict[str, Any], second: dict[str, Any]) -> list[str]:
    """Dotted keys in which the parameters of two runs differ; `runtime` (device, threads) changes no result."""
    one, other = dict(flat(first)), dict(flat(second))
    return [key for key in one | other if not key.startswith("runtime.")
            and not (key in one and key in other and is_same(one[key], other[key]))]


def listed(keys: list[str]) -> str:
    """Keys in a sentence: the first few, and how many more."""
    return ", ".join(keys[:NAMED]) + (f" and {len(keys) - NAMED} more" if len(keys) > NAMED else "")


def columns(ablation: Ablation) -> list[str]:
    """Our metrics of an ablation: those of its columns, then ALSO."""
    beside = [ablation.metric(row, column) for row in ablation.rows for column in ablation.measured_as]
    return list(dict.fromkeys([*beside, *ALSO]))


def markdown(name: str, ablation: Ablation, found: pd.DataFrame, notes: list[str], as_published: bool = False) -> str:
    """The table: ours (mean over seeds, minimum and maximum in brackets) beside the published, and disagreements."""
    is_published = {column: any(column in spec.published for spec in ablation.rows.values())
                    for column in ablation.measured_as}
    head = ["row", "", "method", "seeds"]
    for column in ablation.measured_as:
        head += [f"{heading(column)} ours", *([f"{heading(column)} published"] if is_published[column] else [])]
    head += [label(metric) for metric in ALSO]
    lines = [f"# {ablation.title}{', rows as published' if as_published else ''}", "",
             command(name, found, as_published), "", trainings(ablation, found), "", "| " + " | ".join(head) + " |",
             "| --- | --- | --- |" + " ---: |" * (len(head) - 3)]
    for row, spec in ablation.rows.items():
        own = found[found["row"] == row]
        cells = [row.replace("_", " "), spec.says, spec.method, str(len(own))]
        for column in ablation.measured_as:
            cells += [several(own, ablation.metric(row, column)),
                      *([as_printed(spec.published.get(column))] if is_published[column] else [])]
        cells += [several(own, metric) for metric in ALSO]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Ours, computed as the publication's code does: " + ", ".join(
        f"{heading(column)} is `{metric}`" for column, metric in ablation.measured_as.items() if is_published[column])
        + ". The last columns have no published counterpart."]
    for column in ablation.measured_as:
        metrics = {row: ablation.metric(row, column) for row in ablation.rows}
        if not is_published[column]:
            lines.append(f"{heading(column)}, not published, is `{metrics[next(iter(metrics))]}`: "
                         f"{meaning(ablation.measured_as[column])}.")
        lines += [f"In row {row.replace('_', ' ')} {heading(column)} is `{metric}`." for row, metric in metrics.items()
                  if metric != ablation.measured_as[column]]
        if not found[list(set(metrics.values()))].notna().any(axis=None):
            lines.append(f"{heading(column)} was not measured in these runs; their report says why.")
    for title, points in (("", ablation.notes), (besides_title(as_published), besides(ablation)),
                          ("Ours and the publication", disagreements(ablation, found)), ("Results", notes)):
        if points:
            lines += ["", *([f"{title}:", ""] if title else []), *(f"* {line}" for line in points)]
    return "\n".join(lines).rstrip() + "\n"


def heading(column: str) -> str:
    """A column as the table names it."""
    return column.upper().replace("_", " ")


def command(name: str, found: pd.DataFrame, as_published: bool) -> str:
    """What makes these results and this table."""
    option = " --as-published" if as_published else ""
    seeds = int(found.groupby("row")["seed"].nunique().max())
    return (f"`flipside ablations {name}{f' --seeds {seeds}' if seeds > 1 else ''}{option}`, "
            f"`dvc exp run --run-all -j 1`, `flipside ablation-tables {name}{option}`")


def trainings(ablation: Ablation, found: pd.DataFrame) -> str:
    """How many generators were trained for the table and for how long, with which seeds, at which profile."""
    method = found["row"].map(lambda row: ablation.rows[row].method)
    single = found[~pd.DataFrame({"experiment": found["experiment"], "method": method}).duplicated()]
    seconds = single["seconds_training"].dropna().astype(float)
    total = f"sum of seconds_training = {seconds.sum():.0f} s" if len(seconds) else "seconds_training not recorded"
    if 0 < len(seconds) < len(single):
        total += f" (recorded for {len(seconds)})"
    seeds, profiles = (", ".join(map(str, sorted(set(found[column])))) for column in ("seed", "profile"))
    return (f"Training of the generators: {len(single)} run{'s' if len(single) > 1 else ''}, {total}; seeds {seeds}; "
            f"profile {profiles}.")


def several(own: pd.DataFrame, metric: str) -> str:
    """Mean over seeds, with minimum and maximum where there are several."""
    values = own[metric].dropna().astype(float)
    if values.empty:
        return MISSING
    spread = f" ({significant(values.min())} to {significant(values.max())})" if len(values) > 1 else ""
    return significant(float(values.mean())) + spread


def significant(value: float) -> str:
    """Three decimals, or as many more as it takes to show three significant digits (0.00238, 1.40e-35)."""
    if value and abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:.{3 if value == 0 else max(3, 2 - math.floor(math.log10(abs(value))))}f}"


def as_printed(value: float | None) -> str:
    """A published number with its own digits, three decimals at least."""
    if value is None:
        return MISSING
    return f"{value:.3f}" if float(f"{value:.3f}") == value else str(value)


def besides_title(as_published: bool) -> str:
    """What stands above the lines of `besides`."""
    if as_published:
        return "Also set as in the published runs, for a row and those after it"
    return "The published runs also had, for a row and those after it (`--as-published` sets it)"


def besides(ablation: Ablation) -> list[str]:
    """One line per row whose published run had further values besides the change that the row is named after."""
    return [f"{row.replace('_', ' ')}: " + ", ".join(f"{key.rpartition('.')[2]} {brief(value)}"
                                                    for key, value in spec.as_published.items())
            for row, spec in ablation.rows.items() if spec.as_published]


def brief(value: Any) -> str:
    """A value in few words; of a list of augmentations their names and probabilities."""
    if isinstance(value, list) and value and all(isinstance(step, dict) for step in value):
        return "[" + ", ".join(f"{step['name']} {step['probability']}" for step in value) + "]"
    return written(value)


def disagreements(ablation: Ablation, found: pd.DataFrame) -> list[str]:
    """Steps from a row to the next in which our metric changes in the other direction than the published one.

    Each row counts with the metric that is measured as its published number was; these may be two metrics.
    """
    means = found.groupby("row")[columns(ablation)].mean(numeric_only=True)
    lines = []
    steps = [(before, row) for row, spec in ablation.rows.items() if (before := spec.published_after or spec.after)]
    for before, after in steps:
        for column in ablation.measured_as:
            published = [ablation.rows[row].published[column] for row in (before, after)
                         if column in ablation.rows[row].published]
            metrics = [ablation.metric(row, column) for row in (before, after)]
            if len(published) < 2 or not {before, after} <= set(means.index) or not {*metrics} <= {*means}:
                continue
            ours = [float(means[metric][row]) for row, metric in zip((before, after), metrics, strict=True)]
            if (ours[1] - ours[0]) * (published[1] - published[0]) < 0:
                better = (ours[1] > ours[0]) == higher_is_better(metrics[1])
                lines.append(f"{before} to {after}: {heading(column)} gets {'better' if better else 'worse'} here "
                             f"({significant(ours[0])} to {significant(ours[1])}), the other way round in the "
                             f"publication ({as_printed(published[0])} to {as_printed(published[1])})"
                             + (", by two metrics here as there" if metrics[0] != metrics[1] else ""))
    return lines
