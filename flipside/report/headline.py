"""The answer at the top of the HTML report: which method, how sure, and where it fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.report import glossary, pictures, tables
from flipside.report.inputs import ReportInputs, Result
from flipside.report.report_tables import bounds_text, drawn_interval, largest_of, patient_means, size_range

SHOWN_METHODS = 3  # besides the best control
WORST_CASES = 3


def answer(inputs: ReportInputs, rank_by: str, order: list[str], policy: str) -> dict[str, Any]:
    """What the first screen shows: the best method that is no control, its intervals, its failures in words."""
    controls = [name for name in order if inputs.results[name].is_control]
    ranked = [name for name in order if rank_by in inputs.metrics[name]]
    methods = [name for name in ranked if name not in controls]
    beaten = bool(methods) and ranked[0] in controls
    found = {"best": None, "beaten": beaten, "fails": [], "shots": [],
             "which": tables.leader(inputs.metrics, rank_by, controls)[1 if beaten else 0:],  # beaten is the heading
             "sure": tables.against_control(inputs.metrics, rank_by, controls),
             "rows": interval_rows(inputs, rank_by, methods[:SHOWN_METHODS],
                                   [name for name in ranked if name in controls][:1])}
    if methods:
        best = inputs.results[methods[0]]
        found["best"] = best.name
        found["sure"] += reservations(inputs, best, policy)
        found["fails"] = failures(inputs, best, policy)
        found["shots"] = [{"uri": pictures.data_uri(pictures.result_picture(inputs, best, slice_id)),
                           "alt": f"mask of {best.name}, slice {slice_id}", "note": f"IoU {score:.3f}"}
                          for slice_id, score in (worst_cases(best, policy) if inputs.has_lesion_masks else [])]
    return found


def interval_rows(inputs: ReportInputs, rank_by: str, methods: list[str], controls: list[str]) -> list[dict[str, Any]]:
    """The ranked metric of these methods and controls, drawn on the scale of the whole ranking, best first."""
    largest = largest_of(inputs, rank_by)
    return [{"name": name, "control": name in controls, "text": tables.number(inputs.metrics[name][rank_by]),
             "bounds": bounds_text(tables.interval(inputs.metrics[name], rank_by)),
             "drawing": drawn_interval(inputs.metrics[name], rank_by, largest)}
            for name in tables.ranking(inputs.metrics, rank_by) if name in (*methods, *controls)]


def scored(result: Result, policy: str) -> pd.DataFrame:
    """A method's scored lesion slices, as rows of cases.csv."""
    return result.cases[(result.cases["label"] == 1) & result.cases[f"iou_{policy}"].notna()]


def worst_cases(result: Result, policy: str) -> list[tuple[str, float]]:
    """(slice_id, IoU) of the lowest IoUs, one per patient while there are others; of equal ones the largest lesion."""
    column = f"iou_{policy}"
    table = scored(result, policy).sort_values([column, "lesion_px", "slice_id"], ascending=[True, False, True])
    table = table.assign(again=table["patient_id"].duplicated()).sort_values("again", kind="stable").head(WORST_CASES)
    table = table.sort_values(column, kind="stable")
    return list(zip(table["slice_id"], table[column], strict=True))


def reservations(inputs: ReportInputs, result: Result, policy: str) -> list[str]:
    """How far the patients lie apart, whether they are too few for the interval, and what it leaves out."""
    if not inputs.has_lesion_masks:
        return []
    means = patient_means(result, f"iou_{policy}")
    if len(means) == 1:
        return ["All lesion slices are of one patient: nothing here says how another would come out."]
    sentences = [f"Between the {len(means)} patients the mean IoU ranges from {means.min():.3f} to {means.max():.3f}."]
    return [*sentences, *tables.few_patients(inputs.metrics), tables.ONE_TRAINING]


def failures(inputs: ReportInputs, result: Result, policy: str) -> list[str]:
    """What goes wrong with one method, each with its count: missed lesions, sizes, false alarms, no flip."""
    sentences = []
    if inputs.has_lesion_masks:
        lesion = scored(result, policy)
        missed = lesion[lesion[f"iou_{policy}"] == 0]
        sentence = f"Misses the lesion altogether (IoU 0) in {len(missed) or 'none'} of {len(lesion)} lesion slices"
        if len(missed):
            unseen = int((missed["f_x"] < CALLED_ABNORMAL).sum())
            sentence += f"; the classifier itself calls {unseen} of these healthy"
        sentences.append(sentence + ".")
        sentences += worst_size(inputs, result)
        sentences += false_alarms(result)
    return sentences + unconvinced(result)


def worst_size(inputs: ReportInputs, result: Result) -> list[str]:
    """The lesion sizes with the lowest and the highest mean IoU, where there are at least two groups."""
    table = inputs.subgroups
    table = table[(table["method"] == result.name) & (table["n_cases"] > 0)].sort_values("iou_val", kind="stable")
    if len(table) < 2:
        return []
    groups = list(table.itertuples())
    told = [f"{group.size_group} lesions ({size_range(group)}): IoU {group.iou_val:.3f}, n = {group.n_cases}"
            for group in (groups[0], groups[-1])]
    return [f"Worst on {told[0]}; best on {told[1]}."]


def false_alarms(result: Result) -> list[str]:
    """On how many healthy slices the method marks something."""
    healthy = result.cases.loc[result.cases["label"] == 0, "slice_id"]
    if healthy.empty:
        return ["No healthy slice in the test split, so false alarms are unknown."]
    marked = sum(bool(np.asarray(result.masks[result.row_of[slice_id]]).any()) for slice_id in healthy)
    return [f"Marks something on {marked} of {len(healthy)} healthy slices."]


def unconvinced(result: Result) -> list[str]:
    """How many counterfactuals leave the classifier, and the judge, at "abnormal", of those called so before."""
    told = []
    for rate, role in (("success_rate", "classifier"), ("judge_flip_rate", "judge")):
        if rate in result.metrics:
            asked = glossary.count(result.metrics, rate)
            told.append(f"{asked - round(result.metrics[rate] * asked)} of {asked} by the {role}")
    return [f"Counterfactuals still called abnormal: {', '.join(told)}."] if told else []
