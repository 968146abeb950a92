"""Attributes in a generator's style space that a method moves, as the search for them reports them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flipside.report.extras.extra import Extra
from flipside.report.inputs import ReportInputs, Result
from flipside.report.pictures import difference, picture
from flipside.report.shown_cases import ShownCase, make_panels

NOTE = ("Coordinates of the generator’s style space, in the order in which they were found in training slices called "
        "abnormal; each in the slice in which it has the greatest effect, moved alone. Above 0 the logit means "
        "abnormal. Change is on the scale of the differences above.")


def show_attributes(inputs: ReportInputs, result: Result) -> Extra | None:
    """Each attribute with its coordinate, its effect on the logit and its pictures."""
    if result.attributes is None:
        return None
    shown = [ShownCase(
        f"attribute {row.attribute}", str(row.example),
        f"layer {row.layer}, map {row.channel} toward its {row.toward} value: lowers the logit by {row.mean_effect:.3g}"
        f" in the mean of {row.n_images} training slices ({row.n_called} of them called abnormal), in {row.lowers:.0%} "
        f"of them at all; here from {row.logit_before:.3g} to {row.logit_after:.3g}",
        make_panels(attribute_pictures(strip, inputs.shown_channels)),
    ) for row, strip in zip(result.attributes.table.itertuples(), result.attributes.strip, strict=True)]
    return Extra("Attributes that sway the classifier, and their effect on its logit", NOTE, shown) if shown else None


def attribute_pictures(strip: np.ndarray, shown: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """Four pictures (H,W,3) of an attribute's strip (3,H,W) or (3,C,H,W), by name: an image as encoded, with the
    attribute, the difference, and the mean difference over the images in which the attribute was found. shown: an
    image's channels -> those that a picture shows."""
    before, after, mean_change = strip
    return {"encoded": picture(shown(before)), "moved": picture(shown(after)), "change": difference(before, after),
            "mean change": difference(np.zeros_like(before), mean_change)}
