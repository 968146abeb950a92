"""Where a counterfactual differs from its scan: in the lesion, in the organ, elsewhere."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.row_batches import row_batches
from flipside.core.store import as_channels
from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.families.image_change import ImageChange
from flipside.metrics.families.overlap import cross_correlation
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts

REGIONS = {"inside": "inside the lesion", "outside": "outside the lesion", "organ": "in the organ, outside the lesion",
           "background": "outside organ and lesion"}
CHANGE = (*(f"change_{region}" for region in REGIONS), "change_inside_share", "ncc_change")


class ChangeByRegion(Family):
    """Means over the lesion slices that the classifier calls abnormal, each with its count.

    Organ and background can be absent from a slice, which then counts for neither; a metric of no case is absent.
    """

    place = 62
    theme = ImageChange.theme
    needs = ("lesions", "counterfactual")
    absent = "the classifier calls no lesion slice abnormal that has such a region"
    metrics = {
        **{f"change_{region}": Metric(f"change {region}", f"mean |x - x_cf| {text}, scale 0 to 1; lesion slices called "
                                      "abnormal", region == "inside", f"n_change_{region}")
           for region, text in REGIONS.items()},
        "change_inside_share": Metric("share inside", "change summed inside the lesion / summed over the slice, 0 "
                                      "where nothing changes; lesion slices called abnormal", True,
                                      "n_change_inside_share"),
        "ncc_change": Metric("NCC of x - x_cf", "zero-mean normalised cross-correlation of lesion mask and change with "
                             "its sign, what the counterfactual takes away: for lesions brighter than healthy tissue, "
                             "as those of `synthetic_effect`; lesion slices called abnormal", True, "n_ncc_change"),
        "change_inside_to_outside": Metric(
            "inside / outside", "change inside the lesion / change outside of it, of the two means: how much less a "
            "counterfactual resembles its scan where the lesion is than elsewhere", True, "n_change_inside",
            absent="nothing changes outside the lesions, or the classifier calls no lesion slice abnormal"),
    }
    counts = {f"n_{name}": "lesion slices called abnormal" + (f" that have pixels {REGIONS[name[7:]]}"
                                                            if name[7:] in REGIONS else "") for name in CHANGE}
    columns = CHANGE  # lesion cases only, whatever the classifier calls them

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        lesion_cases, test = is_lesion_case(cases).to_numpy(), artifacts.test
        changes = change_by_region(test.images[lesion_cases], artifacts.counterfactual[lesion_cases],
                                   test.lesion[lesion_cases], test.organ[lesion_cases])
        cases.loc[lesion_cases, list(changes)] = np.stack(list(changes.values()), axis=1)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        called = cases[is_lesion_case(cases) & (cases["f_x"] >= CALLED_ABNORMAL)]
        metrics: dict[str, float] = {}
        for name in CHANGE:
            values = called[name].dropna()
            metrics[f"n_{name}"] = len(values)
            if len(values):
                metrics[name] = values.mean()
        if metrics.get("change_outside", 0) > 0 and "change_inside" in metrics:
            metrics["change_inside_to_outside"] = metrics["change_inside"] / metrics["change_outside"]
        return metrics


def change_by_region(images: np.ndarray, counterfactuals: np.ndarray, lesion: np.ndarray,
                     organ: np.ndarray) -> dict[str, np.ndarray]:
    """Mean |x - x_cf| on the scale [0,1] in four regions, the lesion's share of the whole change, and the correlation
    of x - x_cf with the lesion, each (N,).

    images, counterfactuals (N,H,W) or (N,C,H,W) in [-1,1], of whose change the mean over the channels counts; lesion
    (no slice empty), organ (N,H,W) 0/1. Regions: inside the lesion, outside of it, in the organ outside of it, and in
    the background, outside of both. NaN where a region has no pixel; share and correlation of an image that does not
    change are 0.
    """
    result = {name: np.empty(len(images)) for name in CHANGE}
    for part in row_batches(images.shape):
        x, x_cf = (as_channels(np.asarray(stack[part], np.float64)) for stack in (images, counterfactuals))
        changed = np.abs(x - x_cf).mean(axis=1) / 2  # (B,C,H,W) -> (B,H,W)
        inside, in_organ = np.asarray(lesion[part]) > 0, np.asarray(organ[part]) > 0
        regions = (inside, ~inside, in_organ & ~inside, ~in_organ & ~inside)
        for name, region in zip(CHANGE, regions, strict=False):
            pixels = region.sum(axis=(1, 2))
            total = (changed * region).sum(axis=(1, 2))
            result[name][part] = np.divide(total, pixels, out=np.full(len(total), np.nan), where=pixels > 0)
        total, within = changed.sum(axis=(1, 2)), (changed * inside).sum(axis=(1, 2))
        result["change_inside_share"][part] = np.divide(within, total, out=np.zeros(len(total)), where=total > 0)
        result["ncc_change"][part] = cross_correlation((x - x_cf).mean(axis=1), inside)
    return result
