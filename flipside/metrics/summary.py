"""What is measured on each case, and how a method's cases become its numbers.

Populations, all of the test split: lesion cases (labelled abnormal, lesion visible on the store's grid; a lesion that
the method or the classifier misses scores 0), healthy cases (labelled healthy), and for counterfactuals the cases that
the explained classifier calls abnormal, whatever their label. Each number stands beside its count; over a population
that is empty there is no number, only the count 0.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from pydantic import Field
from skimage.metrics import structural_similarity

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.params import Params
from flipside.metrics.statistics import bootstrap_interval, wilson_interval

POLICIES = ("fixed", "otsu", "val", "oracle")
BATCH_PIXELS = 2**20  # pixels in work at once
FLOAT16_LEVELS = 0x3C00 + 1  # bit patterns of the float16 numbers 0 to 1, which grow with the number


class EvaluateParams(Params):
    """Section `evaluate`."""

    cv_tau: float = Field(ge=0, lt=1)
    """Counterfactual validity: least drop of the probability, and least f(x)."""
    bootstrap_samples: int = Field(ge=100)
    """Draws of patients for the intervals."""
    confidence: float = Field(gt=0, lt=1)
    """Of all intervals."""
    reference_method: str
    """Method that the paired tests compare every other one with."""


class EvaluationError(ValueError):
    """Artifacts of the methods that can't be compared."""


def batches(shape: tuple[int, ...], least_pixels: int = 0) -> Iterator[slice]:
    """Row ranges of an array (N,H,W) of at most BATCH_PIXELS pixels each; a row counts `least_pixels` at least."""
    rows = max(1, BATCH_PIXELS // max(1, shape[1] * shape[2], least_pixels))
    return (slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))


def confusion(masks: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positive, false positive and false negative pixels, each (N,), of masks against truth (N,H,W) 0/1."""
    counts = np.empty((3, len(masks)), np.int64)
    for part in batches(masks.shape):
        predicted, true = np.asarray(masks[part]) > 0, np.asarray(truth[part]) > 0
        both = np.count_nonzero(predicted & true, axis=(1, 2))
        counts[:, part] = (both, np.count_nonzero(predicted, axis=(1, 2)) - both,
                           np.count_nonzero(true, axis=(1, 2)) - both)
    return counts[0], counts[1], counts[2]


def iou(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Intersection over union in [0,1] of pixel counts (N,); NaN where mask and truth are both empty."""
    return _ratio(tp, tp + fp + fn)


def dice(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Dice coefficient in [0,1] of pixel counts (N,); NaN where mask and truth are both empty."""
    return _ratio(2 * tp, 2 * tp + fp + fn)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


def pixel_average_precision(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Average precision (N,) of each map's pixels: maps (N,H,W) float16 in [0,1], truth (N,H,W) 0/1, none empty.

    Sum over the distinct values of (recall gained) x (precision), as scikit-learn defines it: equal pixels enter
    together. Counted by the bit patterns of float16, the form in which maps are stored, instead of sorted.
    """
    result = np.empty(len(maps))
    for part in batches(maps.shape, least_pixels=FLOAT16_LEVELS):
        code = (np.asarray(maps[part], np.float16) + np.float16(0)).view(np.uint16).astype(np.int64)  # + 0: no -0
        if code.max() >= FLOAT16_LEVELS:
            raise ValueError("attribution maps must lie in [0,1]")
        code += FLOAT16_LEVELS * np.arange(len(code)).reshape(-1, 1, 1)  # (B,H,W)
        shape, size = (len(code), FLOAT16_LEVELS), len(code) * FLOAT16_LEVELS
        pixels = np.bincount(code.ravel(), minlength=size).reshape(shape)[:, ::-1].cumsum(axis=1)  # value and above
        hits = np.bincount(code[np.asarray(truth[part]) > 0], minlength=size).reshape(shape)[:, ::-1]
        found = hits.cumsum(axis=1)  # (B,levels), highest value first
        result[part] = (hits * (found / np.maximum(pixels, 1))).sum(axis=1) / found[:, -1]
    return result


def cross_correlation(maps: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Zero-mean normalised cross-correlation (N,) in [-1,1] of each map with the truth, both (N,H,W) (VA-GAN,
    Baumgartner et al. 2018). A constant map correlates with nothing: 0."""
    result = np.zeros(len(maps))
    for part in batches(maps.shape):
        found, true = (np.asarray(each[part], np.float64) for each in (maps, truth))  # (B,H,W)
        varied = (found.max(axis=(1, 2)) > found.min(axis=(1, 2))) & (true.max(axis=(1, 2)) > true.min(axis=(1, 2)))
        found, true = (each - each.mean(axis=(1, 2), keepdims=True) for each in (found, true))
        size = np.sqrt((found**2).sum(axis=(1, 2)) * (true**2).sum(axis=(1, 2)))
        np.divide((found * true).sum(axis=(1, 2)), size, out=result[part], where=varied)
    return result


def change(images: np.ndarray, counterfactuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L1 (mean |x - x_cf|) and SSIM, each (N,), of images (N,H,W) in [-1,1], both measured on the scale [0,1].

    SSIM with the Gaussian window of Wang et al. (2004): sigma 1.5, population covariance.
    """
    l1, ssim = np.empty(len(images)), np.empty(len(images))
    for row, pair in enumerate(zip(images, counterfactuals, strict=True)):
        x, x_cf = ((np.asarray(image, np.float64) + 1) / 2 for image in pair)  # (H,W)
        l1[row] = np.abs(x - x_cf).mean()
        ssim[row] = structural_similarity(x, x_cf, data_range=1.0, gaussian_weights=True, sigma=1.5,
                                          use_sample_covariance=False)
    return l1, ssim


def difference_in_organ(images: np.ndarray, others: np.ndarray, organ: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How far the difference of images and others, both (N,H,W), lies in the organ (N,H,W) 0/1: two arrays (N,).

    The share of the summed |x - x'| inside; and 1 where every pixel of the largest difference is inside, else 0 (the
    pointing game, Zhang et al. 2018). NaN where nothing differs, and where the organ is the whole slice (a data set
    without organ masks), of which nothing can lie outside.
    """
    share, peak = np.full((2, len(images)), np.nan)
    for row, (x, x_other, mask) in enumerate(zip(images, others, organ, strict=True)):
        difference = np.abs(np.asarray(x, np.float64) - np.asarray(x_other, np.float64))  # (H,W)
        inside = np.asarray(mask) > 0
        if difference.any() and not inside.all():
            share[row] = difference[inside].sum() / difference.sum()
            peak[row] = inside[difference == difference.max()].all()
    return share, peak


def is_lesion_case(cases: pd.DataFrame) -> pd.Series:
    """Rows of cases.csv that segmentation is scored on: labelled abnormal, with a lesion left after the resize."""
    return (cases["label"] == 1) & (cases["lesion_px"] > 0)


def segmentation_metrics(cases: pd.DataFrame, pooled: dict[str, float], params: EvaluateParams,
                         seed: int) -> dict[str, float]:
    """Means over one method's lesion cases with patient-clustered intervals, and the area marked on healthy ones.

    cases: rows of cases.csv; pooled: `iou_pooled_<policy>`, from pixels summed over the lesion cases. The pixel error
    rate `per_fixed` is over lesion cases too; `fp_area_healthy` is under the policy val. Without healthy cases there is
    no `fp_area_healthy`; without lesion cases there would be next to nothing, so that is refused.
    """
    lesion, healthy = cases[is_lesion_case(cases)], cases[cases["label"] == 0]
    if len(lesion) == 0:
        raise EvaluationError("the test split has no slice with a lesion: give the data set more patients, or change "
                              "how it is split or filtered")
    metrics = {
        "n_cases": len(lesion), "n_healthy": len(healthy), "n_patients": lesion["patient_id"].nunique(),
        "n_lesion_vanished": int(((cases["label"] == 1) & (cases["lesion_px"] == 0)).sum()),
        "pixel_ap": lesion["pixel_ap"].mean(), "ncc": lesion["ncc"].mean(), "per_fixed": lesion["per"].mean(),
        **pooled,
    }
    if len(healthy):
        metrics["fp_area_healthy"] = healthy["fp_area"].mean()
    for policy in POLICIES:
        for name in (f"iou_{policy}", f"dice_{policy}", f"iou_{policy}_raw"):
            metrics[name] = lesion[name].mean()
    if metrics["n_patients"] > 1:
        for name in ("pixel_ap", "ncc", *(f"iou_{policy}" for policy in POLICIES)):
            metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"] = bootstrap_interval(
                lesion[name].to_numpy(), lesion["patient_id"].to_numpy(), params.bootstrap_samples, params.confidence,
                seed)
    return metrics


def counterfactual_metrics(cases: pd.DataFrame, params: EvaluateParams) -> dict[str, float]:
    """Rates and distances over one method's counterfactuals, each with its count and the rates with Wilson intervals.

    success_rate: of f(x) >= 0.5, how many have f(x_cf) < 0.5. l1, ssim, perceptual_clf, lpips where its weights were
    found, and cycle_l1 where the method has a way back: means over the same cases.
    cv: of f(x) > tau, how many have |f(x) - f(x_cf)| > tau (COIN, Shvetsov et al., 2024).
    judge_flip_rate: of those that classifier and judge both call abnormal, how many the judge calls healthy in x_cf.
    Over no case there is no rate: then only the count, 0, is given.
    """
    f_x, f_cf, judge, judge_cf = (cases[name] for name in ("f_x", "f_x_cf", "judge_x", "judge_x_cf"))
    called = f_x >= CALLED_ABNORMAL
    rates = {
        "success_rate": (called, f_cf < CALLED_ABNORMAL),
        "cv": (f_x > params.cv_tau, (f_x - f_cf).abs() > params.cv_tau),
        "judge_flip_rate": (called & (judge >= CALLED_ABNORMAL), judge_cf < CALLED_ABNORMAL),
    }
    metrics = rates_with_intervals(rates, params.confidence)
    if called.any():
        means = cases.loc[called, ["l1", "ssim", "perceptual_clf", "lpips", "cycle_l1"]].mean()
        metrics |= means.dropna().to_dict()  # without LPIPS' weights, or a way back, a column is empty
    return metrics


def abnormal_metrics(cases: pd.DataFrame, params: EvaluateParams) -> dict[str, float]:
    """What a method reaches that also makes images abnormal, over the slices that the classifier calls healthy.

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


def rates_with_intervals(rates: dict[str, tuple[pd.Series, pd.Series]], confidence: float) -> dict[str, float]:
    """Each rate (population, success; both bool over the cases) with its count and Wilson's interval.

    Over no case there is no rate: then only the count, 0, is given.
    """
    metrics: dict[str, float] = {}
    for name, (population, success) in rates.items():
        trials, successes = int(population.sum()), int((population & success).sum())
        metrics[f"n_{name}"] = trials
        if trials:
            metrics[name] = successes / trials
            metrics[f"{name}_ci_low"], metrics[f"{name}_ci_high"] = wilson_interval(successes, trials, confidence)
    return metrics
