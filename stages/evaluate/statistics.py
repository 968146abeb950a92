"""Patient-clustered bootstrap, Wilson's interval, and Wilcoxon's paired test with Holm's correction."""

from __future__ import annotations

import numpy as np
from scipy import stats


def bootstrap_interval(values: np.ndarray, clusters: np.ndarray, samples: int, confidence: float,
                       seed: int) -> tuple[float, float]:
    """Percentile interval of the mean of values (N,) when whole clusters (N,), the patients, are drawn anew.

    Slices of one patient resemble each other, so they are drawn together (Field and Welsh, 2007); each drawn sample's
    mean is over its cases. The same seed draws the same patients, whatever the values.
    Raises ValueError for a single cluster, whose spread nobody can know.
    """
    names, member = np.unique(clusters, return_inverse=True)
    if len(names) < 2:
        raise ValueError(f"a patient-clustered interval needs cases of at least 2 patients, found {len(names)}")
    sums = np.bincount(member, weights=values)  # (P,)
    sizes = np.bincount(member)
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples)
    means = (drawn @ sums) / (drawn @ sizes)  # (samples,P) @ (P,) -> (samples,)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Interval of a proportion (Wilson, 1927), in [0,1]; takes the trials as independent."""
    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def paired_p(values: np.ndarray, reference: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test on the same cases (N,); 1 where no case differs."""
    differences = np.asarray(values, float) - reference
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p values (M,) corrected for M tests (Holm, 1979), in the given order, each at most 1."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(order), 0, -1)  # the smallest counts M times, the largest once
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected
