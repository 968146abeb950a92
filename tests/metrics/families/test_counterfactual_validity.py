import numpy as np
import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.counterfactual_validity import CounterfactualValidity
from flipside.metrics.families.image_change import ImageChange

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")


def counterfactual_cases(rows):
    return pd.DataFrame(rows, columns=["f_x", "f_x_cf", "judge_x", "judge_x_cf", "l1", "ssim"]).assign(
        perceptual_clf=lambda cases: cases["l1"] / 2, lpips=np.nan, cycle_l1=np.nan)


def counterfactual_metrics(cases):
    return CounterfactualValidity().summarise(cases, PARAMS, 0) | ImageChange().summarise(cases, PARAMS, 0)


def test_counterfactual_rates_rest_on_their_own_populations():
    cases = counterfactual_cases([
        (0.95, 0.10, 0.9, 0.2, 0.1, 0.9),  # flipped, drop 0.85, judge convinced
        (0.99, 0.30, 0.9, 0.7, 0.3, 0.7),  # flipped, drop 0.69, judge not convinced
        (0.90, 0.50, 0.4, 0.1, 0.2, 0.8),  # exactly on the border is not flipped; the judge never called it abnormal
        (0.50, 0.40, 0.5, 0.5, 0.4, 0.6),  # exactly on both borders: abnormal, and still so for the judge
        (0.20, 0.95, 0.9, 0.1, 0.9, 0.1),  # called healthy: in no population
    ])
    found = counterfactual_metrics(cases)
    assert (found["n_success_rate"], found["success_rate"]) == (4, 3 / 4)
    assert (found["n_cv"], found["cv"]) == (3, 1 / 3)
    assert (found["n_judge_flip_rate"], found["judge_flip_rate"]) == (3, 1 / 3)
    assert found["l1"] == pytest.approx(0.25) and found["ssim"] == pytest.approx(0.75)
    assert found["perceptual_clf"] == pytest.approx(0.125) and "lpips" not in found
    assert counterfactual_metrics(cases.assign(lpips=cases["l1"]))["lpips"] == pytest.approx(0.25)
    assert "cycle_l1" not in found
    assert counterfactual_metrics(cases.assign(cycle_l1=cases["l1"]))["cycle_l1"] == pytest.approx(0.25)
    assert found["success_rate_ci_low"] < 0.75 < found["success_rate_ci_high"]


def test_a_rate_over_no_case_is_absent_and_its_count_0():
    found = counterfactual_metrics(counterfactual_cases([(0.1, 0.1, 0.9, 0.9, 0.1, 0.9)]))
    assert found == {"n_success_rate": 0, "n_cv": 0, "n_judge_flip_rate": 0}
