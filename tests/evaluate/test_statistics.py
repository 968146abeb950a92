import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stages.evaluate.statistics import bootstrap_interval, holm, paired_p, wilson_interval


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
    expected = np.quantile(slow_bootstrap(values, clusters, 300, 7), [0.05, 0.95])
    np.testing.assert_allclose(bootstrap_interval(values, clusters, 300, 0.9, 7), expected)


def test_the_interval_covers_the_mean_about_as_often_as_it_says_although_slices_resemble_each_other():
    generator = np.random.default_rng(1)
    trials, patients, slices = 300, 40, 8
    clusters = np.repeat(np.arange(patients), slices)
    covered, covered_by_slices = 0, 0
    for trial in range(trials):
        values = np.repeat(generator.normal(0, 1, patients), slices) + generator.normal(0, 0.3, patients * slices)
        low, high = bootstrap_interval(values, clusters, 400, 0.9, trial)
        covered += low <= 0 <= high
        low, high = bootstrap_interval(values, np.arange(len(values)), 400, 0.9, trial)
        covered_by_slices += low <= 0 <= high
    assert 0.84 <= covered / trials <= 0.95
    assert covered_by_slices / trials < 0.6  # what ignoring the patients would claim


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
    assert paired_p(better, base) < 1e-6
    assert paired_p(better, base) == pytest.approx(paired_p(base, better))
    assert paired_p(generator.permutation(better), base) > 0.01  # the pairing matters
    assert paired_p(base, base.copy()) == 1.0


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
