"""Each method against the reference method, by paired tests on the same lesion slices."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.masks.extraction.thresholds import COMPARED, HEADLINE
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.family import Family, Metric
from flipside.metrics.statistics import cluster_means, holm, paired_p, rank_biserial
from flipside.metrics.summary import mean_with_interval

IOU = f"iou_{HEADLINE}"


class ReferenceComparison(Family):
    """The label-free IoU of each method and of `evaluate.reference_method`."""

    place = 110
    theme = "Against the reference method"
    needs = ("lesions",)
    absent = "this is the reference method, or all lesion slices are of one patient"
    metrics = {
        **{f"iou_{policy}_difference": Metric(
            f"IoU {policy.replace('_', '-')}, difference", "mean difference to evaluate.reference_method on the same "
            "slices, above 0 where this method is better; interval over patients", True, interval=True)
           for policy in COMPARED},
        "rank_biserial": Metric("rank-biserial", "effect size of the IoU's differences to the reference over slices: 1 "
                                "where this method is better in every pair, -1 where it is worse", True),
        "wilcoxon_patients_p_holm": Metric(
            "p, patients", "Wilcoxon's paired test against the reference on the patients' mean differences of the IoU, "
            "each patient once, Holm's correction; fewer than 6 patients cannot get below 0.05", False, "n_patients"),
        "wilcoxon_p_holm": Metric("p, slices", "the same test over slices as if those of one patient were independent: "
                                  "they are not, so it is too small", False),
    }

    def compare(self, tables: dict[str, pd.DataFrame], params: EvaluateParams,
                seed: int) -> dict[str, dict[str, float]]:
        """With a single patient there is no interval and no test over patients."""
        others = [method for method in tables if method != params.reference_method]
        base = tables[params.reference_method].dropna(subset=IOU)
        patients = base["patient_id"].to_numpy()
        results: dict[str, dict[str, float]] = {method: {} for method in others}
        for policy in COMPARED:
            iou, name = f"iou_{policy}", f"iou_{policy}_difference"
            for method in others:
                pairs = base.assign(**{name: tables[method][iou].dropna() - base[iou]})
                results[method] |= mean_with_interval(pairs, name, params, seed)
        differences = {method: (tables[method][IOU].dropna() - base[IOU]).to_numpy() for method in others}
        for method, values in differences.items():
            results[method]["rank_biserial"] = rank_biserial(values)
        tests = {"wilcoxon_p_holm": differences}
        if len(np.unique(patients)) > 1:
            tests["wilcoxon_patients_p_holm"] = {method: cluster_means(values, patients)
                                                 for method, values in differences.items()}
        for name, of_method in tests.items():
            p_values = holm(np.array([paired_p(values) for values in of_method.values()]))
            for method, p in zip(of_method, p_values, strict=True):
                results[method][name] = float(p)
        return results
