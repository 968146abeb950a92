"""Patient-clustered bootstrap, Wilson's interval, Wilcoxon's paired test with effect size and Holm's correction."""

from __future__ import annotations

import numpy as np
from scipy import stats

# How often a nominal 95 % `bootstrap_interval` held the true mean over so few simulated patients: lowest and highest of
# four shapes of scores (tests/metrics/test_statistics.py simulates again). From 8 patients on it is 0.89 to 0.95.
COVERAGE_OF_95 = {2: (0.47, 0.51), 3: (0.71, 0.75), 4: (0.83, 0.89), 5: (0.88, 0.92), 6: (0.89, 0.93), 7: (0.90, 0.93)}


def bootstrap_interval(values: np.ndarray, clusters: np.ndarray, samples: int, confidence: float,
                       seed: int) -> tuple[float, float]:
    """Expanded percentile interval of the mean of values (N,) when whole clusters (N,), the patients, are drawn anew.

    Slices of one patient resemble each other, so they are drawn together (Field and Welsh, 2007); each drawn sample's
    mean is over its cases. Plain percentiles are too narrow for few clusters P; they are taken further out, at the
    normal tail of -sqrt(P / (P - 1)) t_{P-1} (Hesterberg, 2015, The American Statistician 69:371), and
    still lie within the values' range. For fewer than 8 patients even that is too narrow: see COVERAGE_OF_95. The same
    seed draws the same patients, whatever the values.
    Raises ValueError for a single cluster, whose spread nobody can know.
    """
    return bootstrap_ratio(values, np.ones(len(values)), clusters, samples, confidence, seed)


def bootstrap_ratio(values: np.ndarray, others: np.ndarray, clusters: np.ndarray, samples: int, confidence: float,
                    seed: int) -> tuple[float, float]:
    """As `bootstrap_interval`, of sum(values) / sum(others), both (N,) and of the same cases: a drawn sample has its
    cases in both. Not finite where samples are drawn whose others sum to 0."""
    names, member = np.unique(clusters, return_inverse=True)
    count = len(names)
    if count < 2:
        raise ValueError(f"a patient-clustered interval needs cases of at least 2 patients, found {count}")
    sums, sizes = (np.bincount(member, weights=of_case) for of_case in (values, others))  # (P,) each
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (drawn @ sums) / (drawn @ sizes)  # (samples,P) @ (P,) -> (samples,)
    tail = stats.norm.cdf(np.sqrt(count / (count - 1)) * stats.t.ppf((1 - confidence) / 2, count - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def wilson_interval(successes: int, trials: int, confidence: float) -> tuple[float, float]:
    """Interval of a proportion (Wilson, 1927), in [0,1]; takes the trials as independent."""
    interval = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def paired_p(differences: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed-rank test of paired differences (N,); 1 where none is other than 0.

    The differences are taken as independent: of slices, which are not, p is too small; of patients it is honest.
    """
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def rank_biserial(differences: np.ndarray) -> float:
    """Matched-pairs rank-biserial correlation of paired differences (N,), in [-1,1] (Kerby, 2014).

    The share of Wilcoxon's rank sum that is positive, minus the negative share: 1 where every pair rises. Zeros are
    left out, as in the test; without any other difference it is 0.
    """
    differences = np.asarray(differences, float)
    differences = differences[differences != 0]
    if len(differences) == 0:
        return 0.0
    ranks = stats.rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def cluster_means(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Mean of values (N,) in each cluster (N,): (P,), in the clusters' sorted order."""
    _, member = np.unique(clusters, return_inverse=True)
    return np.bincount(member, weights=values) / np.bincount(member)


def holm(p_values: np.ndarray) -> np.ndarray:
    """p values (M,) corrected for M tests (Holm, 1979), in the given order, each at most 1."""
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values, kind="stable")
    stepped = p_values[order] * np.arange(len(order), 0, -1)  # the smallest counts M times, the largest once
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(np.maximum.accumulate(stepped), 1.0)
    return corrected
