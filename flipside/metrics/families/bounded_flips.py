"""Flips that count only while the image is kept: those of destroyed images don't."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.row_batches import row_batches
from flipside.core.store import as_channels
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.counterfactual_validity import CounterfactualValidity
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts
from flipside.metrics.summary import rates_with_intervals

YARDSTICK_SIGMA = 3 / 64  # of the blur that a change is measured by, as a share of the image's height and width
GREATEST = 1000.0  # of a change beside a blur that changes next to nothing: metrics are finite
SWEEP = np.round(np.arange(0, 1.501, 0.025), 3)  # bounds of reports/flips_by_bound.csv
SWEEP_COLUMNS = ("method", "bound", "bounded_flip_rate", "n")


class BoundedFlips(Family):
    """Rates with Wilson's intervals over the slices that classifier and judge both call abnormal.

    The change of a slice is mean |x - x_cf| as a share of mean |x - G x|, G the Gaussian blur of YARDSTICK_SIGMA. It
    knows no lesion, means the same for every window, size and margin around the image, and no blur of that width and no
    constant image can come below 1/2: G averages and keeps constants c, so that for any c
    |x - G x| <= |x - c| + |G (c - x)| <= 2 |x - c| in the mean over the image (but for its border, where G repeats
    values).
    """

    place = 52
    theme = CounterfactualValidity.theme
    needs = ("counterfactual",)
    absent = "no test slice qualifies"
    metrics = {
        "bounded_flip_rate": Metric("bounded flips", "of the slices that classifier and judge both call abnormal, "
                                    "share that both call healthy in the counterfactual while the change stays within "
                                    "evaluate.change_bound: mean |x - x_cf| / mean |x - blur of x|", True,
                                    "n_bounded_flip_rate", interval=True, tolerance=0.02,
                                    tables=("ranking", "terminal")),
        "flips_beyond_bound": Metric("flips beyond bound", "of the counterfactuals that both call healthy, share whose "
                                     "change exceeds evaluate.change_bound: flips by destroying the image", False,
                                     "n_flips_beyond_bound",
                                     absent="no counterfactual is called healthy by classifier and judge"),
    }
    counts = {"n_bounded_flip_rate": "slices that classifier and judge both call abnormal",
              "n_flips_beyond_bound": "of these, slices that both call healthy in the counterfactual, whatever changed"}
    columns = ("change_to_blur",)

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        cases["change_to_blur"] = change_to_blur(artifacts.test.images, artifacts.counterfactual)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        asked, flipped = flips_of_both(cases)
        kept = cases["change_to_blur"] <= params.change_bound
        metrics = rates_with_intervals({"bounded_flip_rate": (asked, flipped & kept),
                                        "flips_beyond_bound": (flipped, ~kept)}, params.confidence)
        return {name: value for name, value in metrics.items() if not name.startswith("flips_beyond_bound_ci")}


def flips_of_both(cases: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """The slices that classifier and judge both call abnormal, and those of them that both call healthy in the
    counterfactual, each bool over one method's rows of cases.csv."""
    asked = (cases["f_x"] >= CALLED_ABNORMAL) & (cases["judge_x"] >= CALLED_ABNORMAL)
    return asked, asked & (cases["f_x_cf"] < CALLED_ABNORMAL) & (cases["judge_x_cf"] < CALLED_ABNORMAL)


def flips_by_bound(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Columns SWEEP_COLUMNS: the rate of bounded flips under each bound in SWEEP, of the methods that make
    counterfactuals. `tables`: {method: rows of cases.csv}; n: slices that the rate rests on, none without any."""
    rows = []
    for method, cases in tables.items():
        asked, flipped = flips_of_both(cases)
        changes = np.sort(cases.loc[flipped, "change_to_blur"])
        if count := int(asked.sum()):
            rates = np.searchsorted(changes, SWEEP, side="right") / count
            rows += [(method, bound, rate, count) for bound, rate in zip(SWEEP, rates, strict=True)]
    return pd.DataFrame(rows, columns=list(SWEEP_COLUMNS))


def change_to_blur(images: np.ndarray, counterfactuals: np.ndarray) -> np.ndarray:
    """Mean |x - x_cf| / mean |x - G x| (N,), from 0 to GREATEST, of images (N,H,W) or (N,C,H,W) in [-1,1], each channel
    blurred by itself; beyond its border an image goes on with the values that it has there."""
    result = np.zeros(len(images))
    for part in row_batches(images.shape):
        x, x_cf = (as_channels(np.asarray(stack[part], np.float64)) for stack in (images, counterfactuals))  # (B,C,H,W)
        sigma = (0, 0, YARDSTICK_SIGMA * x.shape[2], YARDSTICK_SIGMA * x.shape[3])
        changed = np.abs(x - x_cf).mean(axis=(1, 2, 3))
        blurred = np.abs(x - gaussian_filter(x, sigma, mode="nearest")).mean(axis=(1, 2, 3))
        # Where x is as smooth as its blur, any change is greater than any bound.
        result[part] = np.minimum(np.divide(changed, blurred, out=np.where(changed > 0, GREATEST, 0.0),
                                            where=blurred > 0), GREATEST)
    return result
