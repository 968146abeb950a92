"""The four measures of Major et al. (2020, section 3) for attribution maps: D, H, A and O, per image.

Maps are cut at percentiles of their own pixels ("50/25/10 percent of the map-points"), every method's alike; the paper
cuts the maps of its own method at 0.5 instead. D and H are in mm here; the paper has them in pixels of a 576 x 448
mammogram, so its numbers compare in their order alone. D and H of an empty mask are the image's diagonal, O is 0.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from flipside.core.row_batches import row_batches
from flipside.metrics.components import centres, find_components, numbers_by_slice
from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.surface import diagonal, hausdorff

PERCENTILES = (50, 75, 90)
# Measure -> its letter in the paper, meaning, and how the maps are cut; all but the last are better when smaller.
MEASURES = {
    "centre_distance_mm": ("D", "D of Major et al. (2020), there in pixels: distance between the centres of marked "
                           "components and lesions, median per image; map cut at its"),
    "hausdorff_mm": ("H", "H of Major et al. (2020), there in pixels: Hausdorff distance between marked area and "
                     "lesion; map cut at its"),
    "area_to_organ": ("A", "A of Major et al. (2020): marked area / area of the organ, above 1 where more is marked "
                      "than the organ covers; map cut at its"),
    "overlap_reference": ("O", "O of Major et al. (2020): overlap coefficient with the map of "
                          "evaluate.reference_method, likeness and not quality; both cut at their"),
}
COLUMNS = tuple(f"{measure}_p{percentile}" for measure in MEASURES for percentile in PERCENTILES)


class Saliency(Family):
    """Means over lesion slices; the reference method has no overlap with itself."""

    place = 40
    theme = "D, H, A, O of Major et al."
    needs = ("lesions",)
    metrics = {
        f"{measure}_p{percentile}": Metric(
            f"{letter} p{percentile}", f"{meaning} {percentile}th percentile", letter == "O",
            absent="this is the method that the others' maps are compared with" if letter == "O" else "")
        for measure, (letter, meaning) in MEASURES.items() for percentile in PERCENTILES}
    columns = COLUMNS

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        lesion_cases, test = is_lesion_case(cases).to_numpy(), artifacts.test
        reference = artifacts.reference
        measures = measure_saliency(
            artifacts.attribution(lesion_cases), test.lesion[lesion_cases], test.organ[lesion_cases],
            test.spacing[lesion_cases], None if reference is None else reference.attribution(lesion_cases))
        cases.loc[lesion_cases, list(measures)] = np.stack(list(measures.values()), axis=1)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        lesion = cases[is_lesion_case(cases)]
        return {name: lesion[name].mean() for name in COLUMNS if lesion[name].notna().all()}


def measure_saliency(maps: np.ndarray, truth: np.ndarray, organ: np.ndarray, spacing: np.ndarray,
                     reference: np.ndarray | None) -> dict[str, np.ndarray]:
    """D, H, A (and O where there is a reference), each (N,), under the names COLUMNS.

    maps, reference (the reference method's maps): (N,H,W) in [0,1]; truth (no slice empty), organ: (N,H,W) 0/1;
    spacing (N,2) mm. A: marked area / area of the organ, the lesion counted in; above 1 where more is marked than the
    organ covers. O: |mask & reference's mask| / the smaller of both: how alike two methods are, not how good.
    """
    masks = percentile_masks(maps)
    organ_px = ((organ > 0) | (truth > 0)).sum(axis=(1, 2))
    others = percentile_masks(reference) if reference is not None else {}
    distances = hausdorff(list(masks.values()), truth, spacing)  # (3,N)
    measures = {f"hausdorff_mm_p{percentile}": row for percentile, row in zip(masks, distances, strict=True)}
    for percentile, mask in masks.items():
        measures[f"centre_distance_mm_p{percentile}"] = centre_distance(mask, truth, spacing)
        measures[f"area_to_organ_p{percentile}"] = mask.sum(axis=(1, 2)) / organ_px
    for percentile, other in others.items():
        measures[f"overlap_reference_p{percentile}"] = overlap_coefficient(masks[percentile], other)
    return measures


def percentile_masks(maps: np.ndarray) -> dict[int, np.ndarray]:
    """{percentile: masks (N,H,W) bool} of maps (N,H,W): the pixels strictly above the percentile of their image.

    Where the percentile is the map's greatest value, as in a map of 0 and 1, the pixels of that value. A constant map
    marks nothing.
    """
    masks = {percentile: np.empty(maps.shape, bool) for percentile in PERCENTILES}
    for part in row_batches(maps.shape):
        values = np.asarray(maps[part], np.float32)  # (B,H,W)
        cuts = np.percentile(values, PERCENTILES, axis=(1, 2))[..., None, None]  # (3,B,1,1)
        low, high = values.min(axis=(1, 2), keepdims=True), values.max(axis=(1, 2), keepdims=True)
        top = (values == high) & (low < high)
        for percentile, cut in zip(PERCENTILES, cuts, strict=True):
            masks[percentile][part] = (values > cut) | (top & (cut >= high))
    return masks


def centre_distance(masks: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance (N,) in mm between the centres of the mask's and of the truth's components, median over all pairs."""
    distance = diagonal(masks.shape, spacing)
    parts = find_components(masks), find_components(truth)
    places = [centres(part) for part in parts]
    for row, numbers in enumerate(zip(*map(numbers_by_slice, parts), strict=True)):
        ours, theirs = (place[own] * spacing[row] for place, own in zip(places, numbers, strict=True))  # (c,2) each
        if len(ours):
            distance[row] = np.median(cdist(ours, theirs))
    return distance


def overlap_coefficient(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Szymkiewicz-Simpson overlap |A & B| / min(|A|, |B|) (N,) in [0,1] of masks (N,H,W) bool; 0 where one is empty."""
    smaller = np.minimum(masks.sum(axis=(1, 2)), others.sum(axis=(1, 2)))
    return (masks & others).sum(axis=(1, 2)) / np.maximum(smaller, 1)
