"""What the label-free IoU is lost to: the classifier's misses, masks in the wrong place, lesion pixels that are missed,
and marked pixels beside the lesion."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.masks.extraction.thresholds import HEADLINE
from flipside.metrics.evaluation import EvaluateParams, is_lesion_case
from flipside.metrics.families.overlap import confusion
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import mean_with_interval


class LostIou(Family):
    """Means over lesion slices, which with `iou_<HEADLINE>` add up to 1: IoU + FN / union + FP / union = 1 in each."""

    place = 14
    theme = "What is the IoU lost to?"
    needs = ("lesions",)
    metrics = {
        f"lost_to_{cause}": Metric(f"lost: {label}", f"{meaning}; the four `lost_to_*` and iou_{HEADLINE} add up to 1",
                                   False, interval=True)
        for cause, label, meaning in (
            ("under_segmentation", "under-segmentation", "IoU lost to lesion pixels that the mask leaves out, FN / "
             "union, where it meets the lesion, or is empty though the classifier calls the slice abnormal"),
            ("over_segmentation", "over-segmentation", "IoU lost to marked pixels beside the lesion, FP / union, where "
             "the mask meets the lesion"),
            ("wrong_place", "wrong place", "IoU lost where something is marked, but no pixel of the lesion"),
            ("classifier", "classifier", "IoU lost where the classifier calls a slice with a lesion healthy and the "
             "mask is empty"))}
    columns = tuple(metrics)  # lesion cases only

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        lesion_cases = is_lesion_case(cases).to_numpy()
        tp, fp, fn = confusion(artifacts.masks(HEADLINE)[lesion_cases], artifacts.test.lesion[lesion_cases])
        called_healthy = cases.loc[lesion_cases, "f_x"].to_numpy() < CALLED_ABNORMAL
        cases.loc[lesion_cases, list(self.columns)] = divide_lost_iou(tp, fp, fn, called_healthy)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        lesion = cases[is_lesion_case(cases)]
        found: dict[str, float] = {}
        for name in self.columns:
            found |= mean_with_interval(lesion, name, params, seed)
        return found


def divide_lost_iou(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, called_healthy: np.ndarray) -> np.ndarray:
    """1 - IoU of each slice as a sum of four parts (N,4) in [0,1], in the order of `LostIou.columns`.

    tp, fp, fn: pixel counts (N,), the lesion (tp + fn) not empty; called_healthy (N,) bool: what the explained
    classifier says. A slice whose mask does not meet the lesion loses all of its IoU to one part.
    """
    union, empty = tp + fp + fn, tp + fp == 0
    unseen, elsewhere = empty & called_healthy, (tp == 0) & ~empty
    under = np.where(unseen | elsewhere, 0, fn / union)
    over = np.where(elsewhere, 0, fp / union)
    return np.stack([under, over, elsewhere, unseen], axis=1)
