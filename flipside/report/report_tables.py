"""The tables of the HTML report as its template takes them: ranking, patients, lesion sizes, all metrics, times."""

from __future__ import annotations

from typing import Any

import pandas as pd

from flipside.metrics import registry
from flipside.report import charts, glossary, tables
from flipside.report.inputs import ReportInputs, Result


def bounds_text(bounds: tuple[float, float] | None) -> str:
    """An interval as it stands beside its number; empty where there is none."""
    return "" if bounds is None else f"{tables.number(bounds[0])}–{tables.number(bounds[1])}"


def largest_of(inputs: ReportInputs, rank_by: str) -> float:
    """End of the scale on which the ranked metric is drawn: the greatest value, interval's end or oracle."""
    ranked = [values for values in inputs.metrics.values() if rank_by in values]
    reach = [values[rank_by] for values in ranked]
    reach += [(tables.interval(values, rank_by) or (0, 0))[1] for values in ranked]
    return max(reach + [values.get("iou_oracle", 0.0) for values in ranked if rank_by.startswith("iou_")])


def drawn_interval(values: dict[str, float], rank_by: str, largest: float) -> str:
    """The ranked metric of one method with its interval and, for an IoU, the oracle's; empty without the metric."""
    if rank_by not in values:
        return ""
    oracle = values.get("iou_oracle") if rank_by.startswith("iou_") else None
    return charts.draw_interval(values[rank_by], tables.interval(values, rank_by), oracle, largest)


def ranked_table(inputs: ReportInputs, rank_by: str, order: list[str]) -> dict[str, Any]:
    """Head and rows of the ranked table; each cell carries its value for sorting and a title that explains it."""
    names = tables.columns(rank_by, tables.TABLE)
    largest = largest_of(inputs, rank_by)
    rows = []
    for place, name in enumerate(order, start=1):
        values, result = inputs.metrics[name], inputs.results[name]
        cells = [cell(result, metric) for metric in names]
        cells[0] |= {"drawing": drawn_interval(values, rank_by, largest)}
        rows.append({"place": place, "name": name, "control": result.is_control, "cells": cells,
                     "unchanged": tables.is_unchanged(values), "n": glossary.count(values, rank_by)})
    head = [{"label": glossary.label(name), "higher": glossary.higher_is_better(name),
             "oracle": name.endswith("oracle"), "meaning": glossary.meaning(name)} for name in names]
    return {"head": head, "rows": rows}


def cell(result: Result, metric: str) -> dict[str, Any]:
    """One number of a table; its title says what it rests on, or why it is missing."""
    value = result.metrics.get(metric)
    if value is None:
        return {"text": tables.MISSING, "value": None, "bounds": "",
                "title": glossary.why_missing(metric, result.has_counterfactual, result.missing)}
    images = result.explanations.timing["images"]
    n = images if metric == "seconds_per_image" else glossary.count(result.metrics, metric)
    title = f"{glossary.label(metric)} of {result.name}"
    if n is not None and not metric.startswith("n_"):
        title += f", n = {n}"
    bounds = tables.interval(result.metrics, metric)
    if bounds:
        title += f", interval {tables.number(bounds[0])} to {tables.number(bounds[1])}"
    caution = result.cautions.get(metric)
    return {"text": tables.number(value) + ("*" if caution else ""), "value": value, "bounds": bounds_text(bounds),
            "title": f"{title}. {caution}" if caution else title}


def all_metrics(inputs: ReportInputs, order: list[str]) -> dict[str, Any]:
    """Every metric of every method by theme, metrics down, methods across; an interval stands with its metric."""
    known = tables.known_metrics(inputs.metrics)
    rows: dict[str, list] = {title: [] for title in registry.themes()}
    for metric in known:
        if registry.base_name(metric) == metric:
            rows[registry.theme_of(metric)].append({"name": metric, "cells": [cell(inputs.results[name], metric)
                                                                     for name in order]})
    return {"methods": order, "count": len(known),
            "themes": [{"title": title, "rows": found} for title, found in rows.items() if found]}


def meanings(inputs: ReportInputs, order: list[str]) -> dict[str, Any]:
    """What each metric means, and why methods lack it; that maps alone can't be asked for counterfactuals goes once."""
    explained = []
    for name, metric in glossary.METRICS.items():
        gaps: dict[str, list[str]] = {}
        asked = [method for method in order
                 if inputs.results[method].has_counterfactual or not metric.needs_counterfactual]
        for method in asked:
            result = inputs.results[method]
            if name not in result.metrics:
                reason = glossary.why_missing(name, result.has_counterfactual, result.missing)
                gaps.setdefault(reason, []).append(method)
        explained.append({"name": name, "label": metric.label, "meaning": metric.meaning,
                          "higher": metric.higher_is_better, "counterfactual": metric.needs_counterfactual, "gaps": [
                              {"who": "every method" if len(who) == len(asked) else ", ".join(who), "reason": reason}
                              for reason, who in gaps.items()]})
    return {"metrics": explained, "maps": [name for name in order if not inputs.results[name].has_counterfactual]}


def realism(inputs: ReportInputs, order: list[str]) -> dict[str, Any]:
    """Distances between scans and counterfactuals: metrics that any method has down, methods that make counterfactuals
    across; below them what was not measured and what limits the numbers, each reason once."""
    makers = [name for name in order if inputs.results[name].has_counterfactual]
    names = registry.metrics_in("distances")
    rows = []
    for name in (name for name in names if any(name in inputs.metrics[maker] for maker in makers)):
        unchanged = next((inputs.metrics[maker][f"{name}_unchanged"] for maker in makers
                          if f"{name}_unchanged" in inputs.metrics[maker]), None)
        rows.append({"label": glossary.label(name), "meaning": glossary.METRICS[name].meaning,
                     "higher": glossary.higher_is_better(name), "unchanged": tables.number(unchanged),
                     "cells": [cell(inputs.results[maker], name) for maker in makers]})
    remarks: dict[str, dict[str, None]] = {}  # text -> labels of the metrics that it is about
    for maker in makers:
        result = inputs.results[maker]
        for start, about in (("not measured", result.missing), ("* read with care", result.cautions)):
            for name in (name for name in names if name in about):
                remarks.setdefault(f"{start}: {about[name]}", {})[glossary.label(name)] = None
    return {"methods": makers, "rows": rows, "remarks": {text: list(of) for text, of in remarks.items()}}


def patient_means(result: Result, column: str) -> pd.Series:
    """One method's mean score of each patient over that patient's scored lesion slices (others have no score)."""
    return result.cases.dropna(subset=[column]).groupby("patient_id")[column].mean()


def patients_table(inputs: ReportInputs, order: list[str], policy: str) -> dict[str, Any] | None:
    """How far each method's scores lie apart between patients; None for a data set without lesion masks."""
    if not inputs.has_lesion_masks:
        return None
    column, rows = f"iou_{policy}", []
    for name in order:
        result = inputs.results[name]
        means = patient_means(result, column)
        rows.append({
            "name": name, "control": result.is_control, "n": len(means), "worst": tables.number(float(means.min())),
            "median": tables.number(float(means.median())), "best": tables.number(float(means.max())),
            "drawing": charts.draw_patients(means, float(result.cases[column].mean()),
                                            tables.interval(result.metrics, column), f"IoU ({policy}) of {name}"),
        })
    return {"label": f"IoU ({policy})", "rows": rows}


def size_range(group: Any) -> str:
    """The lesion areas of one row of reports/subgroups.csv in words."""
    low, high = (f"{area:.0f}" if area >= 10 else f"{area:.2g}" for area in (group.low_mm2, group.high_mm2))
    return f"{low} to {high} mm²"


def subgroup_table(inputs: ReportInputs, order: list[str]) -> dict[str, Any] | None:
    """Mean IoU and average precision by lesion size, groups across; None where no group has a case."""
    table = inputs.subgroups[inputs.subgroups["n_cases"] > 0]
    if table.empty:
        return None
    groups = list(table[table["method"] == order[0]].itertuples())
    largest = float(table[["iou_val", "iou_val_ci_high"]].max().max())
    rows = []
    for name in order:
        cells = []
        for group in table[table["method"] == name].itertuples():
            bounds = (group.iou_val_ci_low, group.iou_val_ci_high)
            bounds = None if pd.isna(bounds[0]) else bounds
            cells.append({"iou": tables.number(group.iou_val), "bounds": bounds_text(bounds),
                          "ap": tables.number(group.pixel_ap),
                          "drawing": charts.draw_interval(group.iou_val, bounds, None, largest)})
        rows.append({"name": name, "control": inputs.results[name].is_control, "cells": cells})
    return {"rows": rows, "head": [{"name": group.size_group, "range": size_range(group), "n_cases": group.n_cases,
                                    "n_patients": group.n_patients} for group in groups]}


def population_rows(inputs: ReportInputs) -> list[dict[str, Any]]:
    """reports/populations.csv for the page: counts whole, empty fields as a dash."""
    rows = []
    for row in inputs.populations.to_dict("records"):
        counts = {name: tables.MISSING if pd.isna(row[name]) else int(row[name])
                  for name in ("n_slices", "n_patients", "dropped")}
        texts = {name: "" if pd.isna(row[name]) else str(row[name]) for name in ("population", "meaning", "reason")}
        rows.append(counts | texts)
    return rows


def timing(inputs: ReportInputs, order: list[str]) -> list[dict[str, Any]]:
    """Seconds, memory and device of every method, as its explain stage measured them."""
    found = {name: inputs.results[name].explanations.timing for name in order}
    slowest, greatest = (max(float(timing[key]) for timing in found.values())
                         for key in ("seconds_per_image", "peak_memory_gb"))
    return [{"name": name, "images": timing["images"], "seconds": tables.number(float(timing["seconds"])),
             "seconds_per_image": tables.number(float(timing["seconds_per_image"])),
             "time_bar": charts.draw_level(float(timing["seconds_per_image"]), slowest),
             "memory": tables.number(float(timing["peak_memory_gb"])),
             "memory_bar": charts.draw_level(float(timing["peak_memory_gb"]), greatest), "device": timing["device"]}
            for name, timing in found.items()]


def quality_table(inputs: ReportInputs) -> dict[str, Any]:
    """The two classifiers' own metrics, one row each."""
    keys = list(dict.fromkeys(key for values in inputs.quality.values() for key in values))
    return {"names": keys, "rows": [{"role": role, "cells": [tables.number(values.get(key)) for key in keys]}
                                   for role, values in inputs.quality.items()]}


def confusion_tables(inputs: ReportInputs) -> list[dict[str, Any]]:
    """How many test slices each classifier calls what they are, for each that left a confusion.csv."""
    shown = []
    for role, pairs in inputs.confusion.items():
        counts = pd.crosstab(pairs["actual"], pairs["predicted"])
        names = sorted({*counts.index, *counts.columns})
        counts = counts.reindex(index=names, columns=names, fill_value=0)
        shown.append({"role": role, "names": names, "rows": [{"name": name, "counts": counts.loc[name].tolist()}
                                                             for name in names]})
    return shown
