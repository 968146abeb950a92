"""A sweep as a picture, of the experiments that `dvc exp show` has for a commit, and of the commit itself.

python -m flipside.cli.sweep --param generators.coin.skips --metric coin.iou_val coin.fp_area_healthy --out sweep.png
"""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flipside.core.params import stage_main
from flipside.regression.comparison import METRICS_FILE
from flipside.regression.lockfile import DVC, run
from flipside.report.figures import save_figure
from flipside.report.glossary import higher_is_better, label

WIDE = 50  # a ratio of largest to smallest value from which the axis is logarithmic


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--param", required=True, help="the parameter on the x axis, a dotted key of params.yaml")
    parser.add_argument("--metric", required=True, nargs="+", help="<method>.<metric>, one panel each")
    parser.add_argument("--out", required=True, type=Path, help="the PNG")
    parser.add_argument("--rev", default="HEAD", help="the commit whose experiments are drawn")
    arguments = parser.parse_args()
    shown = json.loads(run(*DVC, "exp", "show", "--json", "--rev", arguments.rev, "--hide-workspace"))
    points, left_out = sweep(shown, arguments.param, arguments.metric)
    save_figure(arguments.out, draw(points, arguments.param, arguments.metric))
    print(points.to_string(index=False))
    if left_out:
        print(f"left out, without a result: {', '.join(left_out)}")
    print(f"{arguments.out}: {len(points)} results")


def sweep(shown: list[dict[str, Any]], param: str, metrics: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row per result: its name, `param`, the other parameters that differ, the metrics and their bounds.

    `shown` is what `dvc exp show --json` prints. Also returns the names of what has no result: queued, running, failed,
    or without one of the metrics. Raises ValueError for an unknown key, and where no two results differ in `param`.
    """
    bounds = [f"{metric}_ci_{side}" for metric in metrics for side in ("low", "high")]
    wanted, rows, left_out, known = {param, *metrics}, [], [], set()
    for name, data in results(shown):
        values = {} if data is None else dict(flat(data["metrics"].get(METRICS_FILE, {}).get("data") or {}))
        parameters = {} if data is None else dict(flat(data["params"]["params.yaml"]["data"]))
        known |= {*values, *parameters}
        if wanted <= {*values, *parameters}:
            rows.append({"experiment": name, **parameters, **{key: values.get(key) for key in [*metrics, *bounds]}})
        else:
            left_out.append(name)
    for unknown in sorted(wanted - known):
        alike = difflib.get_close_matches(unknown, known, 5, 0.5)
        raise ValueError(f"no result has {unknown!r}" + (f"; alike are: {', '.join(alike)}" if alike else ""))
    table = pd.DataFrame(rows, dtype=object)  # null stays null beside text and numbers
    differing = [key for key in table if table[key].map(repr).nunique() > 1]
    if param not in differing:
        raise ValueError(f"no two results differ in {param!r}: try `dvc exp run --queue -S '{param}=...'`")
    others = [key for key in differing if key not in {"experiment", param, *metrics, *bounds}]
    kept = table[["experiment", param, *others, *metrics, *bounds]].dropna(axis="columns", how="all")
    return kept.sort_values(param, key=lambda column: column if is_numeric(column) else column.map(repr),
                            ignore_index=True), left_out


def results(shown: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(name, data) of the commit and of its experiments; None where a run hasn't succeeded.

    DVC lists the commit's own metrics for an experiment that failed.
    """
    for baseline in shown:
        yield baseline["name"] or baseline["rev"][:7], baseline["data"]
        for experiment in baseline["experiments"] or []:
            succeeded = (experiment["executor"] or {"state": "success"})["state"] == "success"
            for revision in experiment["revs"]:
                yield (experiment["name"] or revision["rev"][:7],
                       revision["data"] if succeeded and not revision["error"] else None)


def flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything in nested mappings; a list is one value."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def is_numeric(column: pd.Series) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column)


def draw(points: pd.DataFrame, param: str, metrics: list[str]) -> Figure:
    """One panel per metric, with its interval where it has one; one line per combination of the other parameters."""
    others = list(points)[2:list(points).index(metrics[0])]
    names = [", ".join(f"{key}={row[key]}" for key in others) for _, row in points.iterrows()]
    figure = Figure(figsize=(1.0 + 4.2 * len(metrics), 3.8), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        places = _x_axis(axes, points[param])
        for name in dict.fromkeys(names):
            rows = [one == name for one in names]
            own = points[rows]
            line = axes.plot(places[rows], own[metric].astype(float), "o-", markersize=4, label=name)[0]
            if f"{metric}_ci_low" in points:
                bounds = [own[f"{metric}_ci_{side}"].astype(float) for side in ("low", "high")]
                axes.vlines(places[rows], *bounds, color=line.get_color(), alpha=0.5)
        method, _, short = metric.rpartition(".")
        axes.set_xlabel(param)
        axes.set_ylabel(f"{method}, {label(short)} ({'more' if higher_is_better(short) else 'less'} is better)")
        axes.spines[["top", "right"]].set_visible(False)
    if others:
        figure.legend(handles=figure.axes[0].lines, loc="outside upper center", fontsize="small", ncols=2)
    return figure


def _x_axis(axes: Axes, column: pd.Series) -> np.ndarray:
    """(P,) places on the x axis: numbers where they are, logarithmic where they span much; others side by side."""
    if not is_numeric(column):
        names = column.map(str)
        order = list(dict.fromkeys(names))
        axes.set_xticks(range(len(order)), order, fontsize="small")
        return names.map(order.index).to_numpy(float)
    values = column.to_numpy(float)
    positive = values[values > 0]
    if len(positive) and (values >= 0).all() and positive.max() / positive.min() >= WIDE:
        axes.set_xscale("symlog", linthresh=positive.min())  # linear from 0 to the smallest, then logarithmic
        axes.set_xticks(np.unique(values), [f"{value:g}" for value in np.unique(values)])
        axes.minorticks_off()
    return values


if __name__ == "__main__":
    stage_main(main)
