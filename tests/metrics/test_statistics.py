import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flipside.metrics.statistics import (
    COVERAGE_OF_95,
    bootstrap_interval,
    cluster_means,
    holm,
    paired_p,
    rank_biserial,
    wilson_interval,
)


def slow_bootstrap(values, clusters, samples, seed):
    """The means of the same draws, patient by patient."""
    names = sorted(set(clusters))
    means = []
    for counts in np.random.default_rng(seed).multinomial(len(names), [1 / len(names)] * len(names), size=samples):
        drawn = []
        for name, count in zip(names, counts, strict=True):
            drawn += list(values[clusters == name]) * count
        means.append(np.mean(drawn))
    return np.array(means)


def test_whole_patients_are_drawn():
    generator = np.random.default_rng(0)
    clusters = generator.choice(["a", "b", "c", "d", "e"], 40)
    values = generator.random(40)
    tail = stats.norm.cdf(-np.sqrt(5 / 4) * 2.1318)  # t of 4 degrees of freedom, 5 % on each side
    expected = np.quantile(slow_bootstrap(values, clusters, 300, 7), [tail, 1 - tail])
    np.testing.assert_allclose(bootstrap_interval(values, clusters, 300, 0.9, 7), expected, rtol=1e-4)


def coverage(patients, score, true, trials, by_slice=False):
    """How often a nominal 95 % interval holds the true mean of patients with 4 to 29 slices each."""
    generator, covered = np.random.default_rng(patients), 0
    for trial in range(trials):
        clusters = np.repeat(np.arange(patients), generator.integers(4, 30, patients))
        values = score(generator, clusters)
        low, high = bootstrap_interval(values, np.arange(len(values)) if by_slice else clusters, 500, 0.95, trial)
        covered += low <= true <= high
    return covered / trials


def normal_scores(generator, clusters):
    return generator.normal(0, 1, clusters.max() + 1)[clusters] + generator.normal(0, 0.5, len(clusters))


def ious(first, second):
    """Scores in [0,1] around each patient's own, which is Beta(first, second)."""
    def score(generator, clusters):
        own = generator.beta(first, second, clusters.max() + 1)[clusters]
        return generator.beta(6 * own + 1e-3, 6 * (1 - own) + 1e-3)
    return score


SHAPES = {"normal": (normal_scores, 0), "middling": (ious(3, 3), 0.5), "mostly missed": (ious(0.7, 4), 0.7 / 4.7),
          "good": (ious(8, 2), 0.8)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("patients", [8, 25])
def test_the_interval_covers_the_mean_about_as_often_as_it_says_although_slices_resemble_each_other(shape, patients):
    score, true = SHAPES[shape]
    assert (0.85 if patients == 8 else 0.9) <= coverage(patients, score, true, 400) <= 0.99
    assert coverage(patients, score, true, 60, by_slice=True) < 0.7  # what ignoring the patients would claim


@pytest.mark.parametrize("patients", COVERAGE_OF_95)
def test_few_patients_have_the_coverage_that_the_reports_tell(patients):
    found = [coverage(patients, score, true, 300) for score, true in SHAPES.values()]
    low, high = COVERAGE_OF_95[patients]
    assert low - 0.05 <= min(found) <= max(found) <= high + 0.05
    assert min(found) < 0.93


def test_the_same_seed_gives_the_same_interval_and_order_does_not_matter():
    values, clusters = np.random.default_rng(2).random(30), np.arange(30) % 7
    first = bootstrap_interval(values, clusters, 500, 0.95, 3)
    order = np.random.default_rng(3).permutation(30)
    assert bootstrap_interval(values[order], clusters[order], 500, 0.95, 3) == pytest.approx(first)
    assert bootstrap_interval(values, clusters, 500, 0.95, 4) != first


def test_one_patient_has_no_interval():
    with pytest.raises(ValueError, match="at least 2 patients"):
        bootstrap_interval(np.ones(5), np.zeros(5), 100, 0.95, 0)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilsons_interval_solves_its_equation(pair):
    successes, trials = pair
    low, high = wilson_interval(successes, trials, 0.95)
    rate, z = successes / trials, stats.norm.ppf(0.975)
    assert 0 <= low <= rate + 1e-12 and rate - 1e-12 <= high <= 1
    for bound in (low, high):  # |rate - bound| = z sqrt(bound (1 - bound) / n)
        assert abs(rate - bound) == pytest.approx(z * np.sqrt(bound * (1 - bound) / trials), abs=1e-6)


def test_the_paired_test_sees_a_shift_in_pairs_and_no_difference_in_equal_cases():
    generator = np.random.default_rng(0)
    base = generator.random(60)
    better = base + 0.02 + generator.normal(0, 0.01, 60)
    assert paired_p(better - base) < 1e-6
    assert paired_p(better - base) == pytest.approx(paired_p(base - better))
    assert paired_p(generator.permutation(better) - base) > 0.01  # the pairing matters
    assert paired_p(np.zeros(60)) == 1.0


def test_over_patients_the_test_keeps_its_level_and_over_slices_it_does_not():
    generator, trials, patients = np.random.default_rng(5), 400, 12
    clusters = np.repeat(np.arange(patients), 10)
    rejected = np.zeros(2)
    for _ in range(trials):
        differences = normal_scores(generator, clusters)  # no method is better, but each patient has a side
        rejected += [paired_p(cluster_means(differences, clusters)) < 0.05, paired_p(differences) < 0.05]
    by_patients, by_slices = rejected / trials
    assert 0.02 <= by_patients <= 0.08
    assert by_slices > 0.3


@pytest.mark.parametrize(("patients", "least"), [(4, 0.125), (5, 0.0625), (6, 0.03125)])
def test_few_patients_cannot_be_significant(patients, least):
    assert paired_p(np.arange(1.0, patients + 1)) == pytest.approx(least)


def test_rank_biserial_is_the_share_of_the_ranks_that_rises_less_the_share_that_falls():
    assert rank_biserial(np.array([0.1, 0.2, 0.4])) == 1
    assert rank_biserial(-np.array([0.1, 0.2, 0.4])) == -1
    assert rank_biserial(np.array([0.0, 0.3, -0.1, 0.2])) == pytest.approx((3 + 2 - 1) / 6)
    assert rank_biserial(np.array([0.2, -0.2, 0.0])) == 0
    assert rank_biserial(np.zeros(3)) == 0
    differences = np.random.default_rng(6).normal(0.3, 1, 40)
    total = 40 * 41 / 2  # by Wilcoxon's statistic, the smaller of the two rank sums
    assert rank_biserial(differences) == pytest.approx(1 - 2 * stats.wilcoxon(differences).statistic / total)


def test_cluster_means_weigh_every_cluster_alike():
    means = cluster_means(np.array([1.0, 5.0, 3.0, 2.0]), np.array(["b", "a", "b", "b"]))
    np.testing.assert_allclose(means, [5, 2])


def test_holm_corrects_as_worked_out_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.9, 0.5])), [1.0, 1.0])
    assert len(holm(np.array([]))) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_never_lowers_a_p_value_nor_changes_the_order(p_values):
    corrected = holm(np.array(p_values))
    assert (corrected >= np.array(p_values)).all() and (corrected <= 1).all()
    assert (np.diff(corrected[np.argsort(p_values, kind="stable")]) >= 0).all()
