"""Neighbours in a ranking on the same test slices: differences with intervals over patients and paired tests."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.statistics import bootstrap_interval, cluster_means, holm, paired_p
from flipside.report.trainings import Pair


def compare_neighbours(cases: pd.DataFrame, order: list[str], metric: str, params: EvaluateParams,
                       seed: int) -> list[Pair]:
    """One Pair for each two methods of `order` that follow each other.

    cases: reports/cases.csv. Empty where it has no column of the metric, and where all slices with a value are of one
    patient: nobody can know how others would spread.
    """
    if metric not in cases:
        return []
    patients = cases.drop_duplicates("slice_id").set_index("slice_id")["patient_id"]
    values = {method: own.set_index("slice_id")[metric].dropna() for method, own in cases.groupby("method")}
    found = []
    for first, second in pairwise(method for method in order if method in values):
        difference = (values[first] - values[second]).dropna()
        clusters = patients[difference.index].to_numpy()
        if len(np.unique(clusters)) < 2:
            return []
        found.append((first, second, difference.to_numpy(), clusters))
    p_values = holm(np.array([paired_p(cluster_means(values, clusters)) for _, _, values, clusters in found]))
    pairs = []
    for (first, second, difference, clusters), p in zip(found, p_values, strict=True):
        low, high = bootstrap_interval(difference, clusters, params.bootstrap_samples, params.confidence, seed)
        pairs.append(Pair(first=first, second=second, difference=float(difference.mean()), low=low, high=high,
                          p_holm=float(p)))
    return pairs
