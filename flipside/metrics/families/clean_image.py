"""Where anomalies or effects are synthetic: how near a counterfactual comes to the image without them."""

from __future__ import annotations

import pandas as pd

from flipside.metrics import psnr
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.image_change import ImageChange
from flipside.metrics.family import Family, Metric
from flipside.metrics.method_artifacts import MethodArtifacts


class CleanImage(Family):
    """Means over the lesion slices that the classifier calls abnormal."""

    place = 64
    theme = ImageChange.theme
    needs = ("lesions", "counterfactual")
    n = "n_psnr_clean"
    absent = "the slice without its lesion is known only where anomalies or effects are synthetic"
    metrics = {
        "psnr_clean": Metric("PSNR clean", "dB, of the counterfactual against the slice before its synthetic anomaly "
                             "or effect; lesion slices called abnormal", True),
        "psnr_clean_unchanged": Metric("PSNR clean, unchanged", "the same of the scan as it is: what changing nothing "
                                       "gets", True),
    }
    counts = {"n_psnr_clean": "lesion slices called abnormal whose image without the anomaly is known"}
    columns = psnr.COLUMNS  # dB

    def measure(self, artifacts: MethodArtifacts, cases: pd.DataFrame) -> None:
        test = artifacts.test
        if test.clean is not None:
            cases["psnr_clean"] = psnr.psnr(artifacts.counterfactual, test.clean)
            cases["psnr_clean_unchanged"] = psnr.psnr(test.images, test.clean)

    def summarise(self, cases: pd.DataFrame, params: EvaluateParams, seed: int) -> dict[str, float]:
        return psnr.clean_metrics(cases)
