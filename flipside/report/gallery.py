"""The pictures of the HTML report: all methods on the same cases, and each method's best, median and worst ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from flipside.report import charts, glossary, pictures, tables
from flipside.report.figures import ReportParams
from flipside.report.inputs import ReportInputs, Result

HEALTHY_PLACES = {"best": "least marked", "worst": "most marked"}
ABNORMAL_METRICS = ("success_rate_to_abnormal", "cv_to_abnormal", "judge_flip_rate_to_abnormal", "added_in_organ",
                    "added_in_organ_chance", "added_peak_in_organ")
ABNORMAL_PLACES = {"best": "most in the organ", "worst": "least in the organ"}


def comparison(inputs: ReportInputs, params: ReportParams, order: list[str]) -> dict[str, Any]:
    """The same slices for all methods: lesion slices from easy to hard, then healthy ones."""
    judged = inputs.cases[~inputs.cases["method"].isin(params.controls)]
    chosen = [("lesion", place, slice_id) for place, slice_id in
              pictures.shared_cases(inputs, params.policy, params.gallery_cases)]
    chosen += [("healthy", HEALTHY_PLACES.get(place, place), slice_id) for place, slice_id in
               pictures.healthy_cases(judged if len(judged) else inputs.cases, params.healthy_cases)]
    rows = []
    for kind, place, slice_id in chosen:
        shots = [{"name": name, "uri": pictures.data_uri(picture),
                  "note": case_score(inputs.results[name], slice_id, params.policy) if name in inputs.results else ""}
                 for name, picture in pictures.compared_pictures(inputs, order, slice_id).items()]
        rows.append({"kind": kind, "place": place, "slice_id": slice_id, "shots": shots})
    return {"rows": rows, "heads": [shot["name"] for shot in rows[0]["shots"]] if rows else []}


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
        "abnormal": abnormal_section(inputs, result), "regions": region_section(inputs, result, params.policy),
        "attributes": attribute_section(result),
        "name": name, "control": result.is_control, "has_counterfactual": result.has_counterfactual, "lesion": lesion,
        "healthy": healthy, "n": len(scores), "threshold": result.thresholds.get(params.policy),
        "strip": charts.draw_strip(np.asarray(scores), f"IoU {params.policy}") if len(scores) else "",
    }


def abnormal_section(inputs: ReportInputs, result: Result) -> dict[str, Any]:
    """Slices called healthy that the method made abnormal, and where it put the lesion; empty where it makes none."""
    if result.explanations.abnormal is None:
        return {}
    shown, cases = [], result.cases.set_index("slice_id")
    for place, slice_id in pictures.abnormal_cases(result, 3):
        case = cases.loc[slice_id]
        share = case["added_in_organ"]
        where = "" if pd.isna(share) else f"{share:.3f} of what is added in the organ; "
        shown.append({
            "place": ABNORMAL_PLACES.get(place, place), "slice_id": slice_id,
            "score": f"{where}f(x) {case['f_x']:.3f}, made abnormal {case['f_x_ab']:.3f}",
            "panels": [{"name": panel, "uri": pictures.data_uri(picture)}
                       for panel, picture in pictures.abnormal_panels(inputs, result, slice_id).items()],
        })
    numbers = [{"label": glossary.label(name), "meaning": glossary.meaning(name),
                "text": tables.number(result.metrics[name]), "n": glossary.count(result.metrics, name)}
               for name in ABNORMAL_METRICS if name in result.metrics]
    return {"cases": shown, "numbers": numbers}


def region_section(inputs: ReportInputs, result: Result, policy: str) -> list[dict[str, Any]]:
    """Blobs, region and composite of a method's best, median and worst lesion slice; empty where it has no region."""
    if result.explanations.blobs is None or result.explanations.roi is None:
        return []
    shown = []
    for place, slice_id in pictures.lesion_cases(result, policy, 3):
        blobs = np.asarray(result.explanations.blobs[result.row_of[slice_id]])
        searched = blobs[:, 6].any()
        score = (f"k* is blob {int(blobs[:, 6].argmax()) + 1}, with {int(blobs[:, 5].sum()) - 1} more in the region"
                 if searched else "called healthy as it is: no search, no region")
        shown.append({"place": place, "slice_id": slice_id, "score": score, "panels": [
            {"name": panel, "uri": pictures.data_uri(picture)}
            for panel, picture in pictures.region_panels(inputs, result, slice_id).items()]})
    return shown


def attribute_section(result: Result) -> list[dict[str, Any]]:
    """The attributes that a method moves, each with its coordinate, its effect on the logit and its pictures."""
    if result.attributes is None:
        return []
    return [{
        "place": f"attribute {row.attribute}", "slice_id": row.example,
        "score": f"layer {row.layer}, map {row.channel} toward its {row.toward} value: lowers the logit by "
                 f"{row.mean_effect:.3g} in the mean of {row.n_images} training slices ({row.n_called} of them called "
                 f"abnormal), in {row.lowers:.0%} of them at all; here from {row.logit_before:.3g} to "
                 f"{row.logit_after:.3g}",
        "panels": [{"name": panel, "uri": pictures.data_uri(picture)}
                   for panel, picture in pictures.attribute_panels(strip).items()],
    } for row, strip in zip(result.attributes.table.itertuples(), result.attributes.strip, strict=True)]


def shown_case(inputs: ReportInputs, result: Result, place: str, slice_id: str, policy: str) -> dict[str, Any]:
    """One slice of a method's gallery with its pictures, its score, and who calls it abnormal how surely."""
    case = result.cases[result.cases["slice_id"] == slice_id].iloc[0]
    asked = [{"role": role, **{key: tables.MISSING if pd.isna(case[column]) else tables.number(float(case[column]))
                               for key, column in (("x", x), ("x_cf", x_cf))}}
             for role, x, x_cf in (("classifier", "f_x", "f_x_cf"), ("judge", "judge_x", "judge_x_cf"))]
    return {
        "place": place, "slice_id": slice_id, "score": case_score(result, slice_id, policy), "asked": asked,
        "panels": [{"name": panel, "uri": pictures.data_uri(picture)}
                   for panel, picture in pictures.case_panels(inputs, result, slice_id).items()],
    }
