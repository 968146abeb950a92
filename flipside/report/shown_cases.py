"""A slice as the page shows it: its pictures, its score, and the classifiers' probabilities."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from flipside.report import pictures, tables
from flipside.report.inputs import ReportInputs, Result


@dataclass(frozen=True)
class Panel:
    """One picture, its name and what stands below it."""

    name: str
    uri: str
    note: str = ""


@dataclass(frozen=True)
class Probability:
    """What a classifier says of a scan and of its counterfactual: the probability of abnormal as text."""

    role: str
    scan: str
    counterfactual: str


@dataclass(frozen=True)
class ShownCase:
    """One slice: where it stands between best and worst, its score in words, and its pictures."""

    place: str
    slice_id: str
    score: str
    panels: list[Panel]
    probabilities: list[Probability] = field(default_factory=list)


def make_panels(named: dict[str, np.ndarray]) -> list[Panel]:
    """Pictures (H,W,3) by name as panels, in their order."""
    return [Panel(name, pictures.data_uri(picture)) for name, picture in named.items()]


def show_case(inputs: ReportInputs, result: Result, place: str, slice_id: str) -> ShownCase:
    """One slice of a method with its pictures, its score, and the probability of abnormal before and after."""
    case = result.cases[result.cases["slice_id"] == slice_id].iloc[0]
    probabilities = [Probability(role, _text(case[scan]), _text(case[counterfactual]))
                     for role, scan, counterfactual in (("classifier", "f_x", "f_x_cf"),
                                                        ("judge", "judge_x", "judge_x_cf"))]
    return ShownCase(place, slice_id, describe_score(inputs, result, slice_id),
                     make_panels(pictures.case_pictures(inputs, result, slice_id)), probabilities)


def describe_score(inputs: ReportInputs, result: Result, slice_id: str) -> str:
    """What stands below a mask: its IoU, or on a healthy slice the area marked."""
    rows = result.cases[result.cases["slice_id"] == slice_id]
    if rows.empty:
        return "not scored"
    case = rows.iloc[0]
    if case["label"] == 1:
        return "" if result.masks is None else f"IoU {case[inputs.iou_column]:.3f}"
    return "" if pd.isna(case["fp_area"]) else f"FP area {case['fp_area']:.3f}"


def _text(value: float) -> str:
    return tables.MISSING if pd.isna(value) else tables.number(float(value))
