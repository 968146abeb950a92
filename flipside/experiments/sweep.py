"""A sweep as a picture: metrics against one parameter, over the experiments of a commit."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flipside.core import paths
from flipside.experiments.results import flat, parameters, results
from flipside.metrics.registry import higher_is_better, label

WIDE = 50  # a ratio of largest to smallest value from which the axis is logarithmic


def points(shown: list[dict[str, Any]], param: str, metrics: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """One row per result: its name, `param`, the other parameters that differ, the metrics and their bounds.

    `shown` is what `dvc exp show --json` prints. Also returns the names of what has no result: queued, running, failed,
    or without one of the metrics. Raises ValueError for an unknown key, and where no two results differ in `param`.
    """
    bounds = [f"{metric}_ci_{side}" for metric in metrics for side in ("low", "high")]
    wanted, rows, left_out, known = {param, *metrics}, [], [], set()
    for name, data in results(shown):
        values = {} if data is None else dict(flat(data["metrics"].get(paths.METRICS, {}).get("data") or {}))
        own = {} if data is None else dict(flat(parameters(data)))
        known |= {*values, *own}
        if wanted <= {*values, *own}:
            rows.append({"experiment": name, **own, **{key: values.get(key) for key in [*metrics, *bounds]}})
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


def is_numeric(column: pd.Series) -> bool:
    """Whether all values of a column are numbers, no booleans."""
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in column)


def draw(table: pd.DataFrame, param: str, metrics: list[str]) -> Figure:
    """One panel per metric, with its interval where it has one; one line per combination of the other parameters."""
    others = list(table)[2:list(table).index(metrics[0])]
    names = [", ".join(f"{key}={row[key]}" for key in others) for _, row in table.iterrows()]
    figure = Figure(figsize=(1.0 + 4.2 * len(metrics), 3.8), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        places = _x_axis(axes, table[param])
        for name in dict.fromkeys(names):
            rows = [one == name for one in names]
            own = table[rows]
            line = axes.plot(places[rows], own[metric].astype(float), "o-", markersize=4, label=name)[0]
            if f"{metric}_ci_low" in table:
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
