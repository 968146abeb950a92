import numpy as np
import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.made_abnormal import MadeAbnormal, difference_in_organ

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")


def test_difference_in_the_organ_by_hand():
    images, others, organ = np.zeros((6, 3, 3)), np.zeros((6, 3, 3)), np.zeros((6, 3, 3), np.uint8)
    organ[:, 0] = 1
    others[0, 0, 0], others[0, 2, 2] = 0.6, -0.2  # three quarters inside, and the largest
    others[1, 0, 0], others[1, 1, :] = 0.1, 0.3  # a tenth inside, the largest not
    others[2] = 0.5  # everywhere alike: not all of the largest are inside; slice 3 doesn't differ
    others[4, 0, :2] = 0.5  # two largest, both inside
    images[5], others[5] = 0.3, -0.2
    organ[5] = 1  # no organ mask: nothing can lie outside, so that 1 would say nothing
    share, peak = difference_in_organ(images, others, organ)
    np.testing.assert_allclose(share, [0.75, 0.1, 1 / 3, np.nan, 1, np.nan])
    np.testing.assert_array_equal(peak, [1, 0, 0, np.nan, 1, np.nan])


def abnormal_cases(rows):
    return pd.DataFrame(rows, columns=["f_x", "f_x_cf", "f_x_ab", "added_in_organ", "added_peak_in_organ",
                                       "organ_area"]).assign(judge_x=0.2, judge_x_ab=0.2)


def abnormal_metrics(cases):
    return MadeAbnormal().summarise(cases, PARAMS, 0)


def test_rates_toward_abnormal_rest_on_the_slices_called_healthy():
    found = abnormal_metrics(abnormal_cases([
        (0.05, 0.01, 0.95, 0.8, 1, 0.1),  # flipped, rises by 0.9
        (0.10, 0.99, 0.70, 0.4, 0, 0.2),  # flipped, rises by 0.6
        (0.30, 0.10, 0.50, 0.6, 1, 0.3),  # exactly on the border is flipped; f(x) too high for the population of CV
        (0.02, 0.02, 0.02, np.nan, np.nan, 0.9),  # both images are the same
        (0.04, 0.02, 0.49, 0.0, 0, 0.9),  # not made abnormal: nothing that could lie anywhere
        (0.35, 0.60, 0.60, np.nan, np.nan, 0.9),  # both images are the same and called abnormal
        (0.50, 0.10, 0.99, 0.0, 0, 0.9),  # called abnormal already: in no population
        (0.95, 0.05, 0.95, 0.0, 0, 0.9),  # in that of both directions alone, where it falls by 0.9
    ]))
    assert (found["n_success_rate_to_abnormal"], found["success_rate_to_abnormal"]) == (6, 4 / 6)
    assert (found["n_cv_to_abnormal"], found["cv_to_abnormal"]) == (4, 1 / 4)
    assert (found["n_cv_both_directions"], found["cv_both_directions"]) == (5, 2 / 5)
    assert (found["n_added_in_organ"], found["added_in_organ"]) == (3, pytest.approx(0.6))
    assert (found["n_added_peak_in_organ"], found["added_peak_in_organ"]) == (3, pytest.approx(2 / 3))
    assert found["added_in_organ_chance"] == pytest.approx(0.2)
    assert found["cv_to_abnormal_ci_low"] < 1 / 4 < found["cv_to_abnormal_ci_high"]


def test_the_judge_is_asked_of_slices_that_both_call_healthy():
    cases = abnormal_cases([(f_x, 0.1, 0.9, 0.5, 1, 0.5) for f_x in (0.1, 0.1, 0.49, 0.1, 0.5)]).assign(
        judge_x=[0.1, 0.49, 0.2, 0.5, 0.1],  # the fourth was abnormal to the judge before, the fifth to the classifier
        judge_x_ab=[0.5, 0.49, 0.9, 0.9, 0.9])  # exactly on the border is convinced
    found = abnormal_metrics(cases)
    assert (found["n_judge_flip_rate_to_abnormal"], found["judge_flip_rate_to_abnormal"]) == (3, 2 / 3)
    assert found["judge_flip_rate_to_abnormal_ci_low"] < 2 / 3 < found["judge_flip_rate_to_abnormal_ci_high"]


def test_without_slices_called_healthy_there_are_only_counts():
    found = abnormal_metrics(abnormal_cases([(0.6, 0.1, 0.9, 0.5, 1, 0.5)]))
    assert found == {"n_success_rate_to_abnormal": 0, "n_cv_to_abnormal": 0, "n_cv_both_directions": 0,
                     "n_judge_flip_rate_to_abnormal": 0, "n_added_in_organ": 0, "n_added_peak_in_organ": 0}
