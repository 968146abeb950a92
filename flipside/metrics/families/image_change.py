"""How much a counterfactual differs from its scan as a whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
from skimage.metrics import structural_similarity

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.core.store import as_channels
from flipside.metrics.evaluation import EvaluateParams, EvaluationError
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts


class ImageChange(Family):
    """Means over the slices that the classifier calls abnormal, whatever their label."""

    place = 60
    theme = "How much is changed, and where?"
    needs = ("counterfactual",)
    n = "n_success_rate"
    absent = "the classifier calls no test slice abnormal"
    metrics = {
        "l1": Metric("L1", "mean absolute change of the image, scale 0 to 1", False, tolerance=0.005,
                     tables=("ranking", "distances")),
        "ssim": Metric("SSIM", "structural similarity of scan and counterfactual", True, tolerance=0.01,
                       tables=("ranking", "distances")),
        "perceptual_clf": Metric("perceptual clf", "distance of scan and counterfactual in the explained classifier's "
                                 "maps; not LPIPS", False, tables=("distances",)),
        "lpips": Metric("LPIPS", "learned perceptual distance of scan and counterfactual (AlexNet, version 0.1)", False,
                        tables=("distances",)),
        "cycle_l1": Metric("cycle L1", "mean absolute difference of a scan and what the method makes of its "
                           "counterfactual on the way back, scale 0 to 1", False,
                           absent="this method has no way back from the counterfactual to the scan"),
    }
    columns = ("l1", "ssim",
               "perceptual_clf",  # not of a classifier that shows no feature maps
               "lpips",  # only where its weights were found
               "cycle_l1")

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        names = ["perceptual_clf", "lpips"]
        cases[names] = artifacts.recorded("realism", names, "measure_realism")
        if any(cases[name].isna().nunique() > 1 for name in names):
            raise EvaluationError(f"data/realism/{artifacts.method}.csv lacks distances of some test slices: "
                                  "run `dvc repro measure_realism`")
        cases["l1"], cases["ssim"] = change(artifacts.test.images, artifacts.counterfactual)
        cases["cycle_l1"] = artifacts.answers("cycle_l1")

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        called = cases.loc[cases["f_x"] >= CALLED_ABNORMAL, list(self.columns)]
        return called.mean().dropna().to_dict()  # without LPIPS' weights, or a way back, a column is empty


def change(images: np.ndarray, counterfactuals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L1 (mean |x - x_cf|) and SSIM, each (N,), of images (N,H,W) or (N,C,H,W) in [-1,1], both measured on the
    scale [0,1].

    SSIM with the Gaussian window of Wang et al. (2004): sigma 1.5, population covariance; of several channels the mean.
    """
    l1, ssim = np.empty(len(images)), np.empty(len(images))
    for row, pair in enumerate(zip(as_channels(images), as_channels(counterfactuals), strict=True)):
        x, x_cf = ((np.asarray(image, np.float64) + 1) / 2 for image in pair)  # (C,H,W)
        l1[row] = np.abs(x - x_cf).mean()
        ssim[row] = np.mean([structural_similarity(*planes, data_range=1.0, gaussian_weights=True, sigma=1.5,
                                                   use_sample_covariance=False)
                             for planes in zip(x, x_cf, strict=True)])
    return l1, ssim
