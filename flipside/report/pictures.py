"""Slices as small colour pictures: scan, counterfactual, difference, attribution, mask against truth."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image, ImageDraw

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.report.inputs import ReportInputs, Result

DIFFERENCE_LIMIT = 0.5  # of the range -1..1; the same in every picture, so that a weak change looks weak
MAX_SIDE = 160  # pixels; larger slices are shrunk for the report
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = (52, 199, 89), (235, 64, 60), (250, 210, 40)
ORGAN = (70, 140, 235)
MASK = "mask"  # the last panel, where there are lesion masks
PANELS = ("scan", "counterfactual", "difference")
ABNORMAL_PANELS = ("made healthy", "made abnormal", "added")  # after the scan, with its organ where that is known
ATTRIBUTION_PANELS = ("scan", "over the scan", "attribution")
REGION_PANELS = ("blobs", "region", "counterfactual")
ATTRIBUTE_PANELS = ("encoded", "moved", "change", "mean change")
BLOB, NEIGHBOUR, MOST_CHANGED = (150, 150, 150), (250, 170, 40), (235, 64, 60)
CHANGE = LinearSegmentedColormap.from_list("change", ["#b9d2ff", "#3a78dc", "#000000", "#dd4b36", "#ffc4b5"], N=257)


def grey(image: np.ndarray) -> np.ndarray:
    """Image (H,W) in [-1,1] -> (H,W,3) uint8."""
    levels = np.round((np.clip(image.astype(np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)  # (H,W) -> (H,W,3)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Second image minus first, both (H,W) -> (H,W,3) uint8: black unchanged, blue darker, red brighter."""
    change = second.astype(np.float32) - first.astype(np.float32)
    return _coloured((change / DIFFERENCE_LIMIT + 1) / 2, CHANGE)


def heat(attribution: np.ndarray) -> np.ndarray:
    """Attribution (H,W) in [0,1] -> (H,W,3) uint8."""
    return _coloured(attribution.astype(np.float32), matplotlib.colormaps["magma"])


def heat_overlay(scan: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Attribution over the scan, the more opaque the stronger: (H,W,3) uint8."""
    opacity = 0.75 * np.clip(attribution.astype(np.float32), 0, 1)[..., None]  # (H,W) -> (H,W,1)
    return np.round(opacity * heat(attribution) + (1 - opacity) * grey(scan)).astype(np.uint8)


def mask_overlay(scan: np.ndarray, mask: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Mask against truth over the scan: true positive green, false positive red, false negative yellow."""
    picture = grey(scan).astype(np.float32)
    found, wanted = mask.astype(bool), lesion.astype(bool)
    for where, colour in ((found & wanted, TRUE_POSITIVE), (found & ~wanted, FALSE_POSITIVE),
                          (~found & wanted, FALSE_NEGATIVE)):
        picture[where] = 0.4 * picture[where] + 0.6 * np.array(colour, np.float32)
    return np.round(picture).astype(np.uint8)


def _coloured(values: np.ndarray, colormap: Colormap) -> np.ndarray:
    return (colormap(np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def case_panels(inputs: ReportInputs, result: Result, slice_id: str) -> dict[str, np.ndarray]:
    """The pictures (H,W,3) of one method and slice, by name (`PANELS` or `ATTRIBUTION_PANELS`, and `MASK`)."""
    scan, at = inputs.store.images[inputs.row_of[slice_id]], result.row_of[slice_id]
    attribution, counterfactual = result.explanations.attribution[at], result.explanations.counterfactual
    if counterfactual is None:
        pictures = (grey(scan), heat_overlay(scan, attribution), heat(attribution))
        panels = dict(zip(ATTRIBUTION_PANELS, pictures, strict=True))
    else:
        pictures = (grey(scan), grey(counterfactual[at]), difference(scan, counterfactual[at]))
        panels = dict(zip(PANELS, pictures, strict=True))
    return panels if result.masks is None else panels | {MASK: result_picture(inputs, result, slice_id)}


def abnormal_panels(inputs: ReportInputs, result: Result, slice_id: str) -> dict[str, np.ndarray]:
    """The four pictures (H,W,3) of one slice that a method made healthy and abnormal, by name.

    Added: image made abnormal minus image made healthy, the difference that `added_in_organ` measures.
    """
    row, at = inputs.row_of[slice_id], result.row_of[slice_id]
    healthy, abnormal = result.explanations.counterfactual[at], result.explanations.abnormal[at]
    scan, organ = inputs.store.images[row], inputs.store.organ[row]
    pictures = (grey(healthy), grey(abnormal), difference(healthy, abnormal))
    panels = dict(zip(ABNORMAL_PANELS, pictures, strict=True))
    return ({"scan": grey(scan)} if organ.all() else {"scan and organ": organ_overlay(scan, organ)}) | panels


def region_panels(inputs: ReportInputs, result: Result, slice_id: str) -> dict[str, np.ndarray]:
    """Three pictures (H',W',3) of a slice whose blobs were changed, by name (`REGION_PANELS`): the blobs' outlines, the
    region that they leave to change, and what was pasted into the scan there."""
    scan, at = inputs.store.images[inputs.row_of[slice_id]], result.row_of[slice_id]
    found = result.explanations
    region = organ_overlay(scan, np.asarray(found.roi[at]) > 0)
    return dict(zip(REGION_PANELS, (outlined(scan, found.blobs[at]), region, grey(found.counterfactual[at])),
                    strict=True))


def attribute_panels(strip: np.ndarray) -> dict[str, np.ndarray]:
    """Four pictures (H,W,3) of an attribute's strip (3,H,W), by name (`ATTRIBUTE_PANELS`): an image as encoded, with
    the attribute, the difference, and the mean difference over the images in which the attribute was found."""
    before, after, mean_change = strip
    pictures = (grey(before), grey(after), difference(before, after), difference(np.zeros_like(before), mean_change))
    return dict(zip(ATTRIBUTE_PANELS, pictures, strict=True))


def outlined(scan: np.ndarray, blobs: np.ndarray) -> np.ndarray:
    """Ellipses of blobs (K,7) over the scan (H,W), enlarged for thin lines: k* red, region orange, rest grey."""
    picture = Image.fromarray(grey(scan))
    factor = max(1, MAX_SIDE // max(scan.shape))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    draw, turn = ImageDraw.Draw(picture), np.linspace(0, 2 * np.pi, 48)
    for x, y, along, across, angle, chosen, most in sorted(np.asarray(blobs).tolist(), key=lambda blob: blob[5:]):
        u, v = along * np.cos(turn), across * np.sin(turn)
        points = np.stack([x + u * np.cos(angle) - v * np.sin(angle), y + u * np.sin(angle) + v * np.cos(angle)], 1)
        points = points * [picture.width, picture.height] + factor / 2  # coordinates are of pixels' corners
        if along > 0:
            draw.line([tuple(point) for point in points], MOST_CHANGED if most else NEIGHBOUR if chosen else BLOB)
    return np.asarray(picture)


def organ_overlay(scan: np.ndarray, organ: np.ndarray) -> np.ndarray:
    """The organ (H,W) 0/1 tinted blue over the scan: (H,W,3) uint8."""
    picture = grey(scan).astype(np.float32)
    inside = organ > 0
    picture[inside] = 0.6 * picture[inside] + 0.4 * np.array(ORGAN, np.float32)
    return np.round(picture).astype(np.uint8)


def result_picture(inputs: ReportInputs, result: Result, slice_id: str) -> np.ndarray:
    """One method's mask of a slice against the truth, without lesion masks its map over the scan: (H,W,3) uint8."""
    row, at = inputs.row_of[slice_id], result.row_of[slice_id]
    if result.masks is None:
        return heat_overlay(inputs.store.images[row], result.explanations.attribution[at])
    return mask_overlay(inputs.store.images[row], result.masks[at], inputs.lesion[row])


def compared_pictures(inputs: ReportInputs, order: list[str], slice_id: str) -> dict[str, np.ndarray]:
    """A slice as the comparison of all methods shows it: scan, truth where it is known, and each method's picture."""
    shown = {"scan": grey(inputs.store.images[inputs.row_of[slice_id]])}
    if inputs.has_lesion_masks:
        shown["truth"] = truth_picture(inputs, slice_id)
    return shown | {name: result_picture(inputs, inputs.results[name], slice_id) for name in order}


def truth_picture(inputs: ReportInputs, slice_id: str) -> np.ndarray:
    """The lesion itself over the scan, in the colour of a perfect mask: (H,W,3) uint8."""
    row = inputs.row_of[slice_id]
    return mask_overlay(inputs.store.images[row], inputs.lesion[row], inputs.lesion[row])


def data_uri(picture: np.ndarray) -> str:
    """Picture (H,W,3) uint8 as a PNG in a data: address; larger ones are shrunk to `MAX_SIDE`."""
    image = Image.fromarray(picture)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    if (picture == picture[..., :1]).all():
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def spread_cases(scores: pd.Series, count: int, best_is_high: bool = True) -> list[tuple[str, str]]:
    """`count` slices from best to worst at even steps of rank, as (place, slice_id); one alone is the median.

    `scores` has the slice_id as its index; ties go by slice_id, so the choice is always the same.
    """
    table = scores.rename("score").rename_axis("slice_id").reset_index()
    table = table.sort_values(["score", "slice_id"], ascending=[not best_is_high, True])
    total = len(table)
    steps = np.linspace(0, total - 1, count) if count > 1 else np.array([(total - 1) / 2])
    places = np.unique(np.floor(steps).astype(int)) if total else []
    names = {0: "best", total - 1: "worst", (total - 1) // 2: "median"} if total > 2 else {}
    return [(names.get(int(place), f"{place + 1} of {total}"), table["slice_id"].iloc[place]) for place in places]


def unranked_cases(slice_ids: Iterable[str], count: int) -> list[tuple[str, str]]:
    """`count` of these slices at even steps, as ("case 1", slice_id), ...: nothing says which is better."""
    spread = spread_cases(pd.Series(0.0, index=list(slice_ids)), count)
    return [(f"case {place}", slice_id) for place, (_, slice_id) in enumerate(spread, start=1)]


def lesion_cases(result: Result, policy: str, count: int) -> list[tuple[str, str]]:
    """A method's best .. worst lesion slices by IoU; in a data set without lesion masks simply evenly spread ones."""
    rows = result.cases[result.cases["label"] == 1].set_index("slice_id")
    if result.masks is None:
        return unranked_cases(rows.index, count)
    return spread_cases(rows.loc[rows["lesion_px"] > 0, f"iou_{policy}"], count)


def shared_cases(inputs: ReportInputs, policy: str, count: int) -> list[tuple[str, str]]:
    """Lesion slices from easiest to hardest by the mean IoU of all methods that are not controls."""
    rows = inputs.cases[inputs.cases["label"] == 1]
    controls = [name for name, result in inputs.results.items() if result.is_control]
    judged = rows[~rows["method"].isin(controls)]
    judged = judged if len(judged) else rows
    if not inputs.has_lesion_masks:
        return unranked_cases(judged["slice_id"].unique(), count)
    names = {"best": "easiest", "worst": "hardest"}
    scores = judged[judged["lesion_px"] > 0].groupby("slice_id")[f"iou_{policy}"].mean()
    return [(names.get(place, place), slice_id) for place, slice_id in spread_cases(scores, count)]


def healthy_cases(cases: pd.DataFrame, count: int) -> list[tuple[str, str]]:
    """Healthy slices from the least to the most falsely marked area, mean over the methods in `cases`; where no area
    was measured (there are no lesion masks) evenly spread ones."""
    healthy = cases[cases["label"] == 0]
    measured = healthy.dropna(subset=["fp_area"])
    if measured.empty:
        return unranked_cases(healthy["slice_id"].unique(), count)
    return spread_cases(measured.groupby("slice_id")["fp_area"].mean(), count, best_is_high=False)


def abnormal_cases(result: Result, count: int) -> list[tuple[str, str]]:
    """Of the slices called healthy and made abnormal, from the most to the least of what is added in the organ; in a
    data set without organ masks evenly spread ones."""
    turned = (result.cases["f_x"] < CALLED_ABNORMAL) & (result.cases["f_x_ab"] >= CALLED_ABNORMAL)
    added = result.cases[turned].dropna(subset=["added_in_organ"])
    if added.empty:
        return unranked_cases(result.cases.loc[turned, "slice_id"], count)
    return spread_cases(added.set_index("slice_id")["added_in_organ"], count)
