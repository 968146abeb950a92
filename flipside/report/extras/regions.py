"""Blobs that a method changed, and the region in which it may change the scan (blobs.npy, roi.npy)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from flipside.report.cases import lesion_cases
from flipside.report.extras.extra import Extra
from flipside.report.inputs import ReportInputs, Result
from flipside.report.pictures import MAX_SIDE, picture, region_overlay
from flipside.report.shown_cases import ShownCase, make_panels

BLOB, NEIGHBOUR, MOST_CHANGED = (150, 150, 150), (250, 170, 40), (235, 64, 60)
NOTE = ("Most changed blob (k*) red, others of the region orange, the rest grey, all at half opacity; outside the blue "
        "region the counterfactual is the scan, bit for bit.")


def show_regions(inputs: ReportInputs, result: Result) -> Extra | None:
    """Blobs, region and composite of a method's best, median and worst lesion slice."""
    blobs = result.explanations.blobs
    if blobs is None or result.explanations.roi is None:
        return None
    shown = [ShownCase(place, slice_id, describe_search(blobs[result.row_of[slice_id]]),
                       make_panels(region_pictures(inputs, result, slice_id)))
             for place, slice_id in lesion_cases(inputs, result)]
    return Extra("Blobs that were changed, and the region left to change", NOTE, shown) if shown else None


def describe_search(blobs: np.ndarray) -> str:
    """Which of a slice's blobs (K,7) was changed most, and how many more are in the region."""
    if not blobs[:, 6].any():
        return "called healthy as it is: no search, no region"
    return f"k* is blob {int(blobs[:, 6].argmax()) + 1}, with {int(blobs[:, 5].sum()) - 1} more in the region"


def region_pictures(inputs: ReportInputs, result: Result, slice_id: str) -> dict[str, np.ndarray]:
    """Three pictures (H',W',3) by name: the blobs' outlines, the region that they leave to change, and the
    counterfactual that was pasted into the scan there."""
    scan, at = inputs.shown_channels(inputs.store.images[inputs.row_of[slice_id]]), result.row_of[slice_id]
    found = result.explanations
    assert found.blobs is not None and found.roi is not None and found.counterfactual is not None
    return {"blobs": outline_blobs(scan, found.blobs[at]), "region": region_overlay(scan, np.asarray(found.roi[at])),
            "counterfactual": picture(inputs.shown_channels(found.counterfactual[at]))}


def outline_blobs(scan: np.ndarray, blobs: np.ndarray) -> np.ndarray:
    """Ellipses of blobs (K,7) over the scan (H,W) or (3,H,W), enlarged for thin lines: k* red, region orange, rest
    grey."""
    drawn = Image.fromarray(picture(scan))
    factor = max(1, MAX_SIDE // max(drawn.size))
    drawn = drawn.resize((drawn.width * factor, drawn.height * factor), Image.Resampling.NEAREST)
    draw, turn = ImageDraw.Draw(drawn), np.linspace(0, 2 * np.pi, 48)
    for x, y, along, across, angle, chosen, most in sorted(np.asarray(blobs).tolist(), key=lambda blob: blob[5:]):
        u, v = along * np.cos(turn), across * np.sin(turn)
        points = np.stack([x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)], 1)
        points = points * [drawn.width, drawn.height] + factor / 2  # coordinates are of pixels' corners
        if along > 0:
            draw.line([tuple(point) for point in points], MOST_CHANGED if most else NEIGHBOUR if chosen else BLOB)
    return np.asarray(drawn)
