"""The HTML report: gathers what the template shows and fills it in. One file, no network, nothing to install."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from stages.common.params import value_at
from stages.evaluate import charts, pictures, tables
from stages.evaluate.figures import ReportParams, rank_metric
from stages.evaluate.report_inputs import ReportInputs, Result

TEMPLATE = Path(__file__).with_name("report.html.jinja")
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pandas", "scikit-image", "scikit-learn", "captum",
            "torchmetrics", "pytorch-fid", "lpips", "nibabel", "pydicom", "pydantic", "safetensors", "dvc", "dvclive",
            "matplotlib", "jinja2")
HEALTHY_PLACES = {"best": "least marked", "worst": "most marked"}
LONGEST_LIST = 100  # rows of a manifest's list that are printed; the file has them all


def render(inputs: ReportInputs, params: ReportParams) -> str:
    """The whole page. The same inputs, packages and git revision give the same text."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    rank_by = rank_metric(inputs, params)
    order = tables.ranking(inputs.metrics, rank_by)
    return environment.from_string(TEMPLATE.read_text()).render(
        title=params.title, dataset=inputs.parameters["dataset"], profile=inputs.parameters["profile"],
        answer=tables.answer(inputs.metrics, rank_by, params.controls), counts=case_counts(inputs),
        confidence=100 * value_at(inputs.parameters, "evaluate.confidence"),
        rank_label=tables.label(rank_by), policy=params.policy, policies=tables.POLICIES,
        has_lesion_masks=inputs.has_lesion_masks, controls=[name for name in order if name in params.controls],
        table=ranked_table(inputs, rank_by, order), all_metrics=all_metrics(inputs, order),
        realism=realism(inputs, order),
        comparison=comparison(inputs, params, order), methods=[method_section(inputs, params, name) for name in order],
        quality=inputs.quality, thresholds=threshold_charts(inputs, order), training=training_charts(inputs),
        timing=timing(inputs, order), manifests=inputs.manifests, longest=LONGEST_LIST,
        parameters=yaml.safe_dump(inputs.parameters, sort_keys=False, allow_unicode=True), origin=origin(inputs),
        difference_limit=pictures.DIFFERENCE_LIMIT, missing=tables.MISSING,
    )


def case_counts(inputs: ReportInputs) -> dict[str, int]:
    """On how many test cases everything below rests."""
    cases = inputs.cases.drop_duplicates("slice_id")
    lesions = cases[(cases["label"] == 1) & ((cases["lesion_px"] > 0) | (not inputs.has_lesion_masks))]
    return {"lesion": len(lesions), "healthy": int((cases["label"] == 0).sum()),
            "patients": cases["patient_id"].nunique(), "lesion_patients": lesions["patient_id"].nunique()}


def run_line(inputs: ReportInputs) -> str:
    """Command, data set, profile, hardware and counts in one line of Markdown; no date, so equal runs are equal."""
    counts = case_counts(inputs)
    devices = sorted({result.explanations.timing["device"] for result in inputs.results.values()})
    shown = inputs.parameters
    return (f"`dvc repro`, data set `{shown['dataset']}`, profile `{shown['profile']}`, {shown['image_size']} x "
            f"{shown['image_size']} pixels, seed {shown['seed']}; {', '.join(devices)}; test split: "
            f"{counts['lesion']} lesion slices of {counts['lesion_patients']} patients, "
            f"{counts['healthy']} healthy slices.")


def ranked_table(inputs: ReportInputs, rank_by: str, order: list[str]) -> dict[str, Any]:
    """Head and rows of the ranked table; each cell carries its value for sorting and a title that explains it."""
    names = tables.columns(rank_by, tables.TABLE)
    ranked = [values for values in inputs.metrics.values() if rank_by in values]
    shows_oracle = rank_by.startswith("iou_")
    reach = [values[rank_by] for values in ranked] + [
        (tables.interval(values, rank_by) or (0, 0))[1] for values in ranked]
    largest = max(reach + [values.get("iou_oracle", 0.0) for values in ranked if shows_oracle])
    rows = []
    for place, name in enumerate(order, start=1):
        values, result = inputs.metrics[name], inputs.results[name]
        cells = [cell(result, metric) for metric in names]
        bounds = tables.interval(values, rank_by)
        drawing = "" if rank_by not in values else charts.draw_interval(
            values[rank_by], bounds, values.get("iou_oracle") if shows_oracle else None, largest)
        cells[0] |= {"drawing": drawing, "bounds": bounds}
        rows.append({"place": place, "name": name, "control": result.is_control, "cells": cells,
                     "n": tables.count(values, rank_by)})
    head = [{"label": tables.label(name), "higher": tables.higher_is_better(name), "oracle": name.endswith("oracle"),
             "meaning": tables.METRICS[name].meaning if name in tables.METRICS else name} for name in names]
    return {"head": head, "rows": rows}


def cell(result: Result, metric: str) -> dict[str, Any]:
    """One number of a table; its title says what it rests on, or why it is missing."""
    value = result.metrics.get(metric)
    if value is None:
        reason = tables.why_missing(metric, result.has_counterfactual, result.missing)
        return {"text": tables.MISSING, "value": None, "title": reason}
    n = result.explanations.timing["images"] if metric == "seconds_per_image" else tables.count(result.metrics, metric)
    title = f"{tables.label(metric)} of {result.name}" + ("" if n is None else f", n = {n}")
    if bounds := tables.interval(result.metrics, metric):
        title += f", interval {bounds[0]:.3f} to {bounds[1]:.3f}"
    if caution := result.cautions.get(metric):
        return {"text": f"{tables.number(value)}*", "value": value, "title": f"{title}. {caution}"}
    return {"text": tables.number(value), "value": value, "title": title}


def all_metrics(inputs: ReportInputs, order: list[str]) -> dict[str, Any]:
    """Every metric of every method, metrics down, methods across."""
    rows = [{"name": metric, "cells": [cell(inputs.results[name], metric) for name in order]}
            for metric in tables.known_metrics(inputs.metrics)]
    return {"methods": order, "rows": rows}


def realism(inputs: ReportInputs, order: list[str]) -> dict[str, Any]:
    """Distances between scans and counterfactuals: metrics that any method has down, methods that make counterfactuals
    across; below them what was not measured and what limits the numbers, each reason once."""
    makers = [name for name in order if inputs.results[name].has_counterfactual]
    names = ["l1", "ssim", "perceptual_clf", "lpips"]
    names += [name for name in tables.METRICS if name.removesuffix("_coin") in tables.DISTANCES]
    rows = []
    for name in (name for name in names if any(name in inputs.metrics[maker] for maker in makers)):
        unchanged = next((inputs.metrics[maker][f"{name}_unchanged"] for maker in makers
                          if f"{name}_unchanged" in inputs.metrics[maker]), None)
        rows.append({"label": tables.label(name), "meaning": tables.METRICS[name].meaning,
                     "higher": tables.higher_is_better(name), "unchanged": tables.number(unchanged),
                     "cells": [cell(inputs.results[maker], name) for maker in makers]})
    remarks: dict[str, dict[str, None]] = {}  # text -> labels of the metrics that it is about
    for maker in makers:
        result = inputs.results[maker]
        for start, about in (("not measured", result.missing), ("* read with care", result.cautions)):
            for name in (name for name in names if name in about):
                remarks.setdefault(f"{start}: {about[name]}", {})[tables.label(name)] = None
    return {"methods": makers, "rows": rows, "remarks": {text: list(of) for text, of in remarks.items()}}


def comparison(inputs: ReportInputs, params: ReportParams, order: list[str]) -> dict[str, Any]:
    """The same slices for all methods: lesion slices from easy to hard, then healthy ones."""
    judged = inputs.cases[~inputs.cases["method"].isin(params.controls)]
    chosen = [("lesion", place, slice_id) for place, slice_id in
              pictures.shared_cases(inputs, params.policy, params.gallery_cases)]
    chosen += [("healthy", HEALTHY_PLACES.get(place, place), slice_id) for place, slice_id in
               pictures.healthy_cases(judged if len(judged) else inputs.cases, params.healthy_cases)]
    rows = []
    for kind, place, slice_id in chosen:
        shots = [("scan", pictures.grey(inputs.store.images[inputs.row_of[slice_id]]), "")]
        shots += [("truth", pictures.truth_picture(inputs, slice_id), "")]
        for name in order:
            result = inputs.results[name]
            shots.append((name, pictures.mask_picture(inputs, result, slice_id),
                          case_score(result, slice_id, params.policy)))
        rows.append({"kind": kind, "place": place, "slice_id": slice_id, "shots": [
            {"name": name, "uri": pictures.data_uri(picture), "note": note} for name, picture, note in shots]})
    return {"rows": rows, "order": order}


def case_score(result: Result, slice_id: str, policy: str) -> str:
    """What stands below a mask: its IoU, or on a healthy slice the area marked."""
    case = result.cases[result.cases["slice_id"] == slice_id]
    if case.empty:
        return "not scored"
    case = case.iloc[0]
    if case["label"] == 1:
        return "" if result.masks is None else f"IoU {case[f'iou_{policy}']:.3f}"
    return "" if pd.isna(case["fp_area"]) else f"FP area {case['fp_area']:.3f}"


def method_section(inputs: ReportInputs, params: ReportParams, name: str) -> dict[str, Any]:
    """One method's gallery: best, median, worst lesion slice, healthy slices, sliders where it has counterfactuals."""
    result = inputs.results[name]
    lesion = [shown_case(inputs, result, place, slice_id, params.policy)
              for place, slice_id in pictures.lesion_cases(result, params.policy, 3)]
    healthy = [shown_case(inputs, result, HEALTHY_PLACES.get(place, place), slice_id, params.policy)
               for place, slice_id in pictures.healthy_cases(result.cases, 2)]
    column = f"iou_{params.policy}"
    scores = result.cases.loc[result.cases["label"] == 1, column].dropna().to_numpy() if column in result.cases else []
    return {
        "name": name, "control": result.is_control, "has_counterfactual": result.has_counterfactual, "lesion": lesion,
        "healthy": healthy, "n": len(scores), "threshold": result.thresholds.get(params.policy),
        "strip": charts.draw_strip(np.asarray(scores), f"IoU {params.policy}") if len(scores) else "",
    }


def shown_case(inputs: ReportInputs, result: Result, place: str, slice_id: str, policy: str) -> dict[str, Any]:
    """One slice of a method's gallery with its pictures, score and probabilities."""
    row = result.explanations.index.iloc[result.row_of[slice_id]]
    return {
        "place": place, "slice_id": slice_id, "score": case_score(result, slice_id, policy),
        "f_x": tables.number(float(row["f_x"])),
        "f_x_cf": tables.MISSING if pd.isna(row["f_x_cf"]) else tables.number(float(row["f_x_cf"])),
        "panels": [{"name": panel, "uri": pictures.data_uri(picture)}
                   for panel, picture in pictures.case_panels(inputs, result, slice_id).items()],
    }


def threshold_charts(inputs: ReportInputs, order: list[str]) -> list[dict[str, Any]]:
    """IoU over the threshold, one small chart per method with all others behind it."""
    if inputs.curves.empty:
        return []
    curves = {name: table.sort_values("threshold") for name, table in inputs.curves.groupby("method")}
    lines = [(table["threshold"].to_numpy(), table["iou"].to_numpy()) for table in curves.values()]
    top = max(float(inputs.curves["iou"].max()) * 1.05, 1e-6)
    x_range = (float(inputs.curves["threshold"].min()), float(inputs.curves["threshold"].max()))
    shown = []
    for name in (name for name in order if name in curves):
        x, y = curves[name]["threshold"].to_numpy(), curves[name]["iou"].to_numpy()
        marks = [(policy, chosen, float(np.interp(chosen, x, y)))
                 for policy in ("val", "oracle") if (chosen := inputs.results[name].thresholds.get(policy)) is not None]
        shown.append({"title": name, "drawing": charts.draw(charts.Chart(
            name, x, y, "threshold", "IoU", behind=lines, marks=marks, x_range=x_range, y_range=(0.0, top)))})
    return shown


def training_charts(inputs: ReportInputs) -> dict[str, list[dict[str, Any]]]:
    """Learning curves of every trained model, one small chart per recorded value."""
    shown = {}
    for model, curves in inputs.training.items():
        shown[model] = []
        for name, table in curves.items():
            table = charts.thin(table)
            x_name, y_name = ("fpr", "tpr") if name == "roc" else ("step", table.columns[-1])
            fixed = (0.0, 1.0) if name == "roc" else None
            x_label = "false positive rate" if name == "roc" else "step"
            chart = charts.Chart(name, table[x_name].to_numpy(float), table[y_name].to_numpy(float), x_label, name,
                                 x_range=fixed, y_range=fixed)
            shown[model].append({"title": "ROC, test split" if name == "roc" else name, "drawing": charts.draw(chart)})
    return shown


def timing(inputs: ReportInputs, order: list[str]) -> list[dict[str, Any]]:
    """Seconds, memory and device of every method, as its explain stage measured them."""
    return [{"name": name, "images": timing["images"], "seconds": tables.number(float(timing["seconds"])),
             "seconds_per_image": tables.number(float(timing["seconds_per_image"])),
             "memory": tables.number(float(timing["peak_memory_gb"])), "device": timing["device"]}
            for name in order for timing in [inputs.results[name].explanations.timing]]


def origin(inputs: ReportInputs) -> dict[str, str]:
    """What one needs to run it again: seed, data fingerprint, git revision, versions."""
    found = {"seed": str(inputs.parameters["seed"]), "data fingerprint": inputs.store.fingerprint,
             "git revision": git_revision(), "Python": platform.python_version(),
             "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_revision() -> str:
    """The commit that the working folder stands on."""
    try:
        answer = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "git is not installed"
    return answer.stdout.strip() if answer.returncode == 0 else "not a git checkout with a commit"
