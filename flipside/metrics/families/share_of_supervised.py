"""Each method against the upper bound: a segmenter that was trained with lesion masks."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from flipside.masks.extraction.thresholds import HEADLINE
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.family import Family, Metric
from flipside.metrics.statistics import bootstrap_ratio

IOU = f"iou_{HEADLINE}"  # the column of cases.csv


class ShareOfSupervised(Family):
    """The label-free IoU, as a share of that of `evaluate.upper_bound` on the same slices."""

    place = 115
    theme = "Against the supervised upper bound"
    needs = ("lesions",)
    absent = "this is the upper bound, or it finds no lesion, or there is none (`evaluate.upper_bound`)"
    metrics = {
        "share_of_supervised": Metric("of supervised", "mean label-free IoU over that of the same network trained with "
                                      "lesion masks, on the same slices; interval over patients, drawn for both "
                                      "alike", True, interval=True),
    }

    def compare(self, tables: dict[str, pd.DataFrame], params: EvaluateParams,
                seed: int) -> dict[str, dict[str, float]]:
        """Nothing where the upper bound finds no lesion; no interval over a single patient, or where patients can be
        drawn of whom it finds none."""
        if params.upper_bound is None:
            return {}
        bound = tables[params.upper_bound].dropna(subset=IOU)
        of_bound, patients = bound[IOU].to_numpy(), bound["patient_id"].to_numpy()
        if not of_bound.any():
            return {}
        results = {}
        for method, cases in tables.items():
            if method == params.upper_bound:
                continue
            values = cases[IOU].dropna().to_numpy()
            results[method] = {"share_of_supervised": float(values.mean() / of_bound.mean())}
            if len(np.unique(patients)) > 1:
                low, high = bootstrap_ratio(values, of_bound, patients, params.bootstrap_samples, params.confidence,
                                            seed)
                if math.isfinite(low) and math.isfinite(high):
                    results[method] |= {"share_of_supervised_ci_low": low, "share_of_supervised_ci_high": high}
        return results
