"""Slices as small colour pictures: scan, counterfactual, difference, attribution, mask against truth.

A slice is (H,W), or (3,H,W) of red, green and blue; `ReportInputs.shown_channels` makes it of other channels.
"""

from __future__ import annotations

import base64
import io

import matplotlib
import numpy as np
from matplotlib.colors import Colormap, LinearSegmentedColormap
from PIL import Image
from scipy import ndimage

from flipside.report.inputs import ReportInputs, Result

DIFFERENCE_LIMIT = 0.5  # of the range -1..1; the same in every picture, so that a weak change looks weak
MAX_SIDE = 160  # pixels; larger slices are shrunk for the report
LEAST_SIDE = 128  # pixels that an outlined slice has at least on its longer side
TRUE_POSITIVE, FALSE_POSITIVE, FALSE_NEGATIVE = (52, 199, 89), (235, 64, 60), (250, 210, 40)
TINT = (70, 140, 235)
DIFFERENCE = "difference"  # the picture of counterfactual minus scan
MASK = "mask"  # the last picture of a case, where there are lesion masks
CHANGE = LinearSegmentedColormap.from_list("change", ["#b9d2ff", "#3a78dc", "#000000", "#dd4b36", "#ffc4b5"], N=257)


def picture(image: np.ndarray) -> np.ndarray:
    """Image in [-1,1] -> (H,W,3) uint8: (H,W) in grey, (3,H,W) in colour."""
    levels = np.round((np.clip(image.astype(np.float32), -1, 1) + 1) * 127.5).astype(np.uint8)
    if levels.ndim == 3:
        return np.moveaxis(levels, 0, -1)  # (3,H,W) -> (H,W,3)
    return np.repeat(levels[..., None], 3, axis=-1)  # (H,W) -> (H,W,3)


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Second image minus first, both (H,W) or (C,H,W) -> (H,W,3) uint8: black unchanged, blue darker, red brighter, of
    several channels in their mean."""
    change = second.astype(np.float32) - first.astype(np.float32)
    if change.ndim == 3:
        change = change.mean(axis=0)  # (C,H,W) -> (H,W)
    return _coloured((change / DIFFERENCE_LIMIT + 1) / 2, CHANGE)


def heat(attribution: np.ndarray) -> np.ndarray:
    """Attribution (H,W) in [0,1] -> (H,W,3) uint8."""
    return _coloured(attribution.astype(np.float32), matplotlib.colormaps["magma"])


def heat_overlay(scan: np.ndarray, attribution: np.ndarray) -> np.ndarray:
    """Attribution over the scan, the more opaque the stronger: (H,W,3) uint8."""
    opacity = 0.75 * np.clip(attribution.astype(np.float32), 0, 1)[..., None]  # (H,W) -> (H,W,1)
    return np.round(opacity * heat(attribution) + (1 - opacity) * picture(scan)).astype(np.uint8)


def mask_overlay(scan: np.ndarray, mask: np.ndarray, lesion: np.ndarray) -> np.ndarray:
    """Mask against truth over the scan: true positive green, false positive red, false negative yellow."""
    overlaid = picture(scan).astype(np.float32)
    found, wanted = mask.astype(bool), lesion.astype(bool)
    for where, colour in ((found & wanted, TRUE_POSITIVE), (found & ~wanted, FALSE_POSITIVE),
                          (~found & wanted, FALSE_NEGATIVE)):
        overlaid[where] = 0.4 * overlaid[where] + 0.6 * np.array(colour, np.float32)
    return np.round(overlaid).astype(np.uint8)


def _coloured(values: np.ndarray, colormap: Colormap) -> np.ndarray:
    return (colormap(np.clip(values, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """An image (H,W) or (3,H,W) in [-1,1], enlarged to at least LEAST_SIDE pixels, with the outline of a mask (H,W):
    (h,w,3) uint8."""
    times = max(1, -(-LEAST_SIDE // max(mask.shape)))
    pixels = picture(image).repeat(times, axis=0).repeat(times, axis=1)  # (h,w,3)
    large = (mask > 0).repeat(times, axis=0).repeat(times, axis=1)  # (h,w)
    edge = large & ~ndimage.binary_erosion(large, border_value=0)
    pixels[edge] = TRUE_POSITIVE
    return pixels


def case_pictures(inputs: ReportInputs, result: Result, slice_id: str) -> dict[str, np.ndarray]:
    """The pictures (H,W,3) of one method and slice, by name: scan, counterfactual and difference, or scan and
    attribution of a method without counterfactuals; then the mask, where there are lesion masks."""
    scan, at = inputs.store.images[inputs.row_of[slice_id]], result.row_of[slice_id]
    attribution, counterfactual = result.explanations.attribution[at], result.explanations.counterfactual
    shown = inputs.shown_channels(scan)
    pictures = {"scan": picture(shown)}
    if counterfactual is None:
        pictures |= {"over the scan": heat_overlay(shown, attribution), "attribution": heat(attribution)}
    else:
        pictures |= {"counterfactual": picture(inputs.shown_channels(counterfactual[at])),
                     DIFFERENCE: difference(scan, counterfactual[at])}
    return pictures if result.masks is None else pictures | {MASK: result_picture(inputs, result, slice_id)}


def region_overlay(scan: np.ndarray, region: np.ndarray) -> np.ndarray:
    """A region (H,W), such as the organ, tinted blue over the scan where it is above 0: (H,W,3) uint8."""
    tinted = picture(scan).astype(np.float32)
    inside = region > 0
    tinted[inside] = 0.6 * tinted[inside] + 0.4 * np.array(TINT, np.float32)
    return np.round(tinted).astype(np.uint8)


def result_picture(inputs: ReportInputs, result: Result, slice_id: str) -> np.ndarray:
    """One method's mask of a slice against the truth, without lesion masks its map over the scan: (H,W,3) uint8."""
    row, at = inputs.row_of[slice_id], result.row_of[slice_id]
    scan = inputs.shown_channels(inputs.store.images[row])
    if result.masks is None:
        return heat_overlay(scan, result.explanations.attribution[at])
    return mask_overlay(scan, result.masks[at], inputs.lesion[row])


def compared_pictures(inputs: ReportInputs, slice_id: str) -> dict[str, np.ndarray]:
    """A slice as the comparison of all methods shows it: scan, truth where it is known, and each method's picture."""
    shown = {"scan": picture(inputs.shown_channels(inputs.store.images[inputs.row_of[slice_id]]))}
    if inputs.has_lesion_masks:
        shown["truth"] = truth_picture(inputs, slice_id)
    return shown | {name: result_picture(inputs, result, slice_id) for name, result in inputs.results.items()}


def truth_picture(inputs: ReportInputs, slice_id: str) -> np.ndarray:
    """The lesion itself over the scan, in the colour of a perfect mask: (H,W,3) uint8."""
    row = inputs.row_of[slice_id]
    return mask_overlay(inputs.shown_channels(inputs.store.images[row]), inputs.lesion[row], inputs.lesion[row])


def data_uri(pixels: np.ndarray, max_side: int = MAX_SIDE) -> str:
    """Picture (H,W,3) uint8 as a PNG in a data: address; larger ones are shrunk to `max_side`."""
    image = Image.fromarray(pixels)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    if (pixels == pixels[..., :1]).all():
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
