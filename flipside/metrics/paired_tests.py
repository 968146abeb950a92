"""All methods side by side: the same cases for each, and each against the reference."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flipside.metrics.statistics import bootstrap_interval, cluster_means, holm, paired_p, rank_biserial
from flipside.metrics.summary import EvaluateParams, EvaluationError

SCORED = ("iou_val", "pixel_ap", "f_x")  # columns of cases.csv that have a value in the same rows for every method
SHARED = ("f_x", "judge_x")  # columns that say something of the slice, not of the method
ROUNDING = 1e-3  # the same classifier on another device answers this close


def check_same_cases(tables: dict[str, pd.DataFrame], reference: str) -> None:
    """Refuse methods that are scored on other cases than the reference, naming the first of them.

    tables: {method: rows of cases.csv}. What depends on the slice alone (f(x), the judge's answer to x) must agree too:
    the populations that follow from it are then the same for every method.
    """
    base = tables[reference]
    for method, cases in tables.items():
        for name in SCORED:
            scored, expected = cases[name].notna(), base[name].notna()
            if not (cases["slice_id"].equals(base["slice_id"]) and scored.equals(expected)):
                raise EvaluationError(f"method {method}: {name} of {scored.sum()} cases, of {reference} "
                                      f"{expected.sum()} others: run `dvc repro extract_masks@{method}`")
        for name in SHARED:
            difference = (cases[name] - base[name]).abs()  # NaN where one of the two makes no counterfactual
            if (difference > ROUNDING).any():
                raise EvaluationError(f"method {method}: {name} of slice {cases['slice_id'][difference.idxmax()]} is "
                                      f"not that of {reference}: they are of different runs, run "
                                      f"`dvc repro explain@{method} judge_counterfactuals`")


def compare(tables: dict[str, pd.DataFrame], params: EvaluateParams, seed: int) -> dict[str, dict[str, float]]:
    """Each method's per-case IoU (policy val) against the reference's on the same lesion cases.

    iou_val_difference: mean over the cases, above 0 where the method is better, with its patient-clustered interval;
    rank_biserial: effect size over the cases. Wilcoxon's p after Holm's correction over the methods, twice:
    wilcoxon_p_holm takes slices as independent, which those of one patient are not, so it is too small;
    wilcoxon_patients_p_holm is of the patients' mean differences (each patient counts once).
    With a single patient there is no interval and no test over patients.
    """
    base = tables[params.reference_method].dropna(subset="iou_val")
    patients = base["patient_id"].to_numpy()
    differences = {method: (cases["iou_val"].dropna() - base["iou_val"]).to_numpy()
                   for method, cases in tables.items() if method != params.reference_method}
    results = {method: {"iou_val_difference": float(values.mean()), "rank_biserial": rank_biserial(values)}
               for method, values in differences.items()}
    tests = {"wilcoxon_p_holm": differences}
    if len(np.unique(patients)) > 1:
        tests["wilcoxon_patients_p_holm"] = {method: cluster_means(values, patients)
                                             for method, values in differences.items()}
        for method, values in differences.items():
            low, high = bootstrap_interval(values, patients, params.bootstrap_samples, params.confidence, seed)
            results[method] |= {"iou_val_difference_ci_low": low, "iou_val_difference_ci_high": high}
    for name, of_method in tests.items():
        p_values = holm(np.array([paired_p(values) for values in of_method.values()]))
        for method, p in zip(of_method, p_values, strict=True):
            results[method][name] = float(p)
    return results
