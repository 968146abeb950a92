"""What a method reaches that also makes slices abnormal, and where it puts the abnormality."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.store import as_channels
from flipside.metrics.evaluation import EvaluateParams, EvaluationError
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import rates_with_intervals


class MadeAbnormal(Family):
    """Over the slices that the classifier calls healthy, rates with Wilson's intervals.

    success_rate_to_abnormal: of f(x) < 0.5, how many have f(x_ab) >= 0.5. cv_to_abnormal: of f(x) < 1 - tau, how many
    have |f(x) - f(x_ab)| > tau. cv_both_directions: of f(x) > tau, whose counterfactual is x_cf, and of f(x) < 1 - tau,
    whose it is x_ab, together, how many move by more than tau: what COIN's code counts for Singla*.
    judge_flip_rate_to_abnormal: of those that classifier and judge both call healthy, how many the judge calls abnormal
    in x_ab.
    Of f(x) < 0.5 and f(x_ab) >= 0.5, where x_ab and x_cf differ at all: added_in_organ, the mean share of |x_ab - x_cf|
    that lies in the organ; added_peak_in_organ, how many have their largest difference there; added_in_organ_chance,
    the organ's mean share of the slice, which both would be if the difference fell anywhere. Both images are the same
    generator's, so its error of reconstruction is in neither.
    """

    place = 80
    theme = "Are healthy slices made abnormal, and where?"
    needs = ("counterfactual", "abnormal")
    absent = "this method makes no slice abnormal, or no test slice qualifies"
    metrics = {
        "success_rate_to_abnormal": Metric(
            "flipped to abnormal", "of the slices called healthy, share that the method makes the classifier call "
            "abnormal", True, "n_success_rate_to_abnormal", interval=True),
        "cv_to_abnormal": Metric("CV to abnormal", "counterfactual validity of the slices made abnormal", True,
                                 "n_cv_to_abnormal", interval=True),
        "judge_flip_rate_to_abnormal": Metric(
            "judge flipped to abnormal", "of the slices that the classifier and a second, independent one both call "
            "healthy, share that the second calls abnormal once they are made so", True,
            "n_judge_flip_rate_to_abnormal", interval=True),
        "cv_both_directions": Metric(
            "CV both directions", "counterfactual validity of the slices called abnormal and of those called healthy "
            "together; at a cv_tau of 0.8 the CV that COIN (Shvetsov et al., 2024) gives for Singla*", True,
            "n_cv_both_directions", interval=True),
        "added_in_organ": Metric(
            "added in organ", "share of |x_ab - x_cf| in the organ, mean over the slices called healthy that the "
            "method makes abnormal: where the same slice made abnormal differs from itself made healthy, so without "
            "what the generator fails to reconstruct in both", True, "n_added_in_organ"),
        "added_in_organ_chance": Metric(
            "in organ by chance", "the organ's share of those slices: what `added in organ` would be if the difference "
            "fell anywhere", True, "n_added_in_organ"),
        "added_peak_in_organ": Metric(
            "peak in organ", "share of those slices whose largest |x_ab - x_cf| is in the organ, where several pixels "
            "tie all of them", True, "n_added_peak_in_organ", interval=True),
    }
    counts = {
        "n_success_rate_to_abnormal": "slices that the classifier calls healthy, whatever their label",
        "n_cv_to_abnormal": "slices with f(x) below 1 - evaluate.cv_tau",
        "n_cv_both_directions": "slices with f(x) above evaluate.cv_tau or below 1 - evaluate.cv_tau",
        "n_judge_flip_rate_to_abnormal": "slices that classifier and judge both call healthy",
        "n_added_in_organ": "slices called healthy and made abnormal, whose two generated images differ",
        "n_added_peak_in_organ": "the same",
    }
    columns = (
        "f_x_ab", "judge_x_ab",  # of the image made abnormal
        # Of |x_ab - x_cf|, the slice made abnormal and made healthy: the share in the organ, whether the largest is
        # there
        "added_in_organ", "added_peak_in_organ",
        "organ_area",  # organ pixels / all pixels, on the store's grid: what both would be by chance
    )

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        method, organ = artifacts.method, artifacts.test.organ
        cases["f_x_ab"] = artifacts.answers("f_x_ab")
        if cases["f_x_ab"].isna().any():
            raise EvaluationError(f"data/explanations/{method}/index.csv lacks f_x_ab of "
                                  f"{cases['f_x_ab'].isna().sum()} test slices though there are images made abnormal: "
                                  f"run `dvc repro explain@{method}`")
        cases[["judge_x_ab"]] = artifacts.recorded("judgements", ["judge_x_ab"], "judge_counterfactuals")
        if cases["judge_x_ab"].isna().any():
            raise EvaluationError(f"data/judgements/{method}.csv lacks judge_x_ab of "
                                  f"{cases['judge_x_ab'].isna().sum()} test slices though there are images made "
                                  "abnormal: run `dvc repro judge_counterfactuals`")
        cases["organ_area"] = (organ > 0).mean(axis=(1, 2))
        cases["added_in_organ"], cases["added_peak_in_organ"] = difference_in_organ(
            artifacts.abnormal, artifacts.counterfactual, organ)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        f_x, f_cf, f_ab, judge, judge_ab = (
            cases[name] for name in ("f_x", "f_x_cf", "f_x_ab", "judge_x", "judge_x_ab"))
        called_healthy = f_x < CALLED_ABNORMAL
        raised, lowered = ((f_x - f_after).abs() > params.cv_tau for f_after in (f_ab, f_cf))
        added = called_healthy & (f_ab >= CALLED_ABNORMAL) & cases["added_in_organ"].notna()
        metrics = rates_with_intervals({
            "success_rate_to_abnormal": (called_healthy, f_ab >= CALLED_ABNORMAL),
            "cv_to_abnormal": (f_x < 1 - params.cv_tau, raised),
            "cv_both_directions": ((f_x > params.cv_tau) | (f_x < 1 - params.cv_tau),
                                   raised.where(called_healthy, lowered)),
            "judge_flip_rate_to_abnormal": (called_healthy & (judge < CALLED_ABNORMAL), judge_ab >= CALLED_ABNORMAL),
            "added_peak_in_organ": (added, cases["added_peak_in_organ"] == 1),
        }, params.confidence)
        metrics["n_added_in_organ"] = int(added.sum())
        if added.any():
            metrics["added_in_organ"] = cases.loc[added, "added_in_organ"].mean()
            metrics["added_in_organ_chance"] = cases.loc[added, "organ_area"].mean()
        return metrics


def difference_in_organ(images: np.ndarray, others: np.ndarray, organ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the difference of images and others, both (N,H,W) or (N,C,H,W), lies in the organ (N,H,W) 0/1: two arrays
    (N,).

    The share of the summed |x - x'| (of several channels their mean) inside; and 1 where every pixel of the largest
    difference is inside, else 0 (the pointing game, Zhang et al. 2018). NaN where nothing differs, and where the organ
    is the whole slice (a data set without organ masks), of which nothing can lie outside.
    """
    share, peak = np.full((2, len(images)), np.nan)
    for row, (x, x_other, mask) in enumerate(zip(as_channels(images), as_channels(others), organ, strict=True)):
        difference = np.abs(np.asarray(x, np.float64) - np.asarray(x_other, np.float64))  # (C,H,W)
        difference = difference.mean(axis=0)  # (C,H,W) -> (H,W)
        inside = np.asarray(mask) > 0
        if difference.any() and not inside.all():
            share[row] = difference[inside].sum() / difference.sum()
            peak[row] = inside[difference == difference.max()].all()
    return share, peak
