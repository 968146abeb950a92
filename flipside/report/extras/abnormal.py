"""Slices called healthy that a method made abnormal, and where it put the lesion (abnormal_counterfactual.npy)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.metrics import registry
from flipside.report.cases import spread_cases, unranked_cases
from flipside.report.extras.extra import Extra, Number
from flipside.report.inputs import ReportInputs, Result
from flipside.report.pictures import difference, picture, region_overlay
from flipside.report.shown_cases import ShownCase, make_panels
from flipside.report.tables import number

METRICS = ("success_rate_to_abnormal", "cv_to_abnormal", "judge_flip_rate_to_abnormal", "added_in_organ",
           "added_in_organ_chance", "added_peak_in_organ")
PLACES = {"best": "most in the organ", "worst": "least in the organ"}
NOTE = ("Added is the image made abnormal minus the image made healthy of the same slice, in the colours and on the "
        "scale of the differences above.")


def show_abnormal(inputs: ReportInputs, result: Result) -> Extra | None:
    """The method's metrics of these slices, and three of them from the most to the least added in the organ."""
    if result.explanations.abnormal is None:
        return None
    shown, cases = [], result.cases.set_index("slice_id")
    for place, slice_id in abnormal_cases(result, 3):
        case = cases.loc[slice_id]
        share = case["added_in_organ"]
        where = "" if pd.isna(share) else f"{share:.3f} of what is added in the organ; "
        shown.append(ShownCase(PLACES.get(place, place), slice_id,
                               f"{where}f(x) {case['f_x']:.3f}, made abnormal {case['f_x_ab']:.3f}",
                               make_panels(abnormal_pictures(inputs, result, slice_id))))
    numbers = [Number(registry.label(name), registry.meaning(name), number(result.metrics[name]),
                      registry.count(result.metrics, name)) for name in METRICS if name in result.metrics]
    return Extra("Slices called healthy, made abnormal", NOTE if shown else "", shown, numbers)


def abnormal_cases(result: Result, count: int) -> list[tuple[str, str]]:
    """Of the slices called healthy and made abnormal, from the most to the least of what is added in the organ; evenly
    spread ones where the data set has no organ masks."""
    flipped = (result.cases["f_x"] < CALLED_ABNORMAL) & (result.cases["f_x_ab"] >= CALLED_ABNORMAL)
    added = result.cases[flipped].dropna(subset=["added_in_organ"])
    if added.empty:
        return unranked_cases(result.cases.loc[flipped, "slice_id"], count)
    return spread_cases(added.set_index("slice_id")["added_in_organ"], count)


def abnormal_pictures(inputs: ReportInputs, result: Result, slice_id: str) -> dict[str, np.ndarray]:
    """The four pictures (H,W,3) of one slice that a method made healthy and abnormal, by name.

    Added: image made abnormal minus image made healthy, the difference that `added_in_organ` measures.
    """
    row, at = inputs.row_of[slice_id], result.row_of[slice_id]
    explanations = result.explanations
    assert explanations.counterfactual is not None and explanations.abnormal is not None
    healthy, abnormal = explanations.counterfactual[at], explanations.abnormal[at]
    scan, organ = inputs.shown_channels(inputs.store.images[row]), inputs.store.organ[row]
    first = {"scan": picture(scan)} if organ.all() else {"scan and organ": region_overlay(scan, organ)}
    return first | {"made healthy": picture(inputs.shown_channels(healthy)),
                    "made abnormal": picture(inputs.shown_channels(abnormal)),
                    "added": difference(healthy, abnormal)}
