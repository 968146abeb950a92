"""Where anomalies or effects are synthetic, the image without them is known: how near a counterfactual comes to it."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.row_batches import row_batches
from flipside.core.store import as_channels
from flipside.metrics.evaluation import is_lesion_case

COLUMNS = ("psnr_clean", "psnr_clean_unchanged")  # of the counterfactual, of the scan as it is
HIGHEST_DB = 100.0  # what an image scores that is the clean one: metrics are finite


def psnr(images: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio (N,) in dB, at most HIGHEST_DB, of images against clean ones, (N,H,W) or (N,C,H,W) in
    [-1,1]; the error is the mean over all channels."""
    errors = np.empty(len(images))
    for part in row_batches(images.shape):
        difference = np.asarray(images[part], np.float64) - np.asarray(clean[part], np.float64)
        errors[part] = (as_channels(difference) ** 2).mean(axis=(1, 2, 3))
    return 10 * np.log10(4 / np.maximum(errors, 4 / 10 ** (HIGHEST_DB / 10)))  # the range [-1,1] is 2 wide


def clean_metrics(cases: pd.DataFrame) -> dict[str, float]:
    """Means of COLUMNS over the lesion cases that the classifier calls abnormal, with their count; {} where unknown."""
    called = cases[is_lesion_case(cases) & (cases["f_x"] >= CALLED_ABNORMAL)].dropna(subset=list(COLUMNS))
    if len(called) == 0:
        return {}
    return {"n_psnr_clean": len(called), **{name: called[name].mean() for name in COLUMNS}}
