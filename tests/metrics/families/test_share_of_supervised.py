"""Shares of the upper bound's IoU: the ratio of means, its interval over patients, and who is marked."""

import numpy as np
import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.share_of_supervised import ShareOfSupervised
from flipside.metrics.families.supervision import UpperBound
from flipside.metrics.statistics import bootstrap_interval, bootstrap_ratio

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=2000, confidence=0.95, reference_method="a",
                        upper_bound="bound")
PATIENTS = np.repeat([f"p{n}" for n in range(10)], 6)


def cases(scores):
    """One method's rows of cases.csv; NaN where a slice has no lesion."""
    return pd.DataFrame({"patient_id": PATIENTS, "iou_label_free": scores})


@pytest.fixture
def scores():
    rng = np.random.default_rng(3)
    of_bound = np.clip(rng.normal(0.6, 0.2, 60) + np.repeat(rng.normal(0, 0.1, 10), 6), 0.05, 1)
    of_bound[7] = np.nan
    return of_bound


def test_share_of_the_means_with_an_interval_of_pairs(scores):
    half = scores / 2
    noisy = np.clip(scores * np.random.default_rng(4).uniform(0.4, 1.2, 60), 0, 1)
    found = ShareOfSupervised().compare({"half": cases(half), "bound": cases(scores), "noisy": cases(noisy)}, PARAMS, 5)
    assert set(found) == {"half", "noisy"}
    # Half of the bound's in every pair: no patient that is drawn or left out changes it.
    assert list(found["half"].values()) == pytest.approx([0.5, 0.5, 0.5])
    share = found["noisy"]["share_of_supervised"]
    assert share == pytest.approx(np.nanmean(noisy) / np.nanmean(scores))
    assert found["noisy"]["share_of_supervised_ci_low"] < share < found["noisy"]["share_of_supervised_ci_high"]


def test_the_interval_of_a_ratio_is_that_of_drawn_patients():
    values, others, clusters = np.array([1.0, 3.0, 2.0]), np.array([2.0, 4.0, 2.0]), np.array(["a", "a", "b"])
    # Both patients once: 6/8; the first twice: 4/6; the second twice: 1.
    assert bootstrap_ratio(values, others, clusters, 400, 0.95, 1) == pytest.approx((4 / 6, 1.0))
    assert bootstrap_interval(values, clusters, 400, 0.95, 1) == bootstrap_ratio(values, np.ones(3), clusters, 400,
                                                                                 0.95, 1)


def test_no_share_of_nothing(scores):
    tables = {"a": cases(scores), "bound": cases(np.where(np.isnan(scores), np.nan, 0.0))}
    assert ShareOfSupervised().compare(tables, PARAMS, 5) == {}
    without = PARAMS.model_copy(update={"upper_bound": None})
    assert ShareOfSupervised().compare({"a": cases(scores)}, without, 5) == {}
    assert UpperBound().compare({"a": cases(scores)}, without, 5) == {}


def test_no_interval_where_patients_could_be_drawn_of_whom_the_bound_finds_nothing(scores):
    rare = np.where(PATIENTS == "p0", scores, 0 * scores)
    found = ShareOfSupervised().compare({"a": cases(scores), "bound": cases(rare)}, PARAMS, 5)
    assert set(found["a"]) == {"share_of_supervised"}


def test_the_upper_bound_is_marked():
    assert UpperBound().compare({"a": cases(1.0), "bound": cases(1.0)}, PARAMS, 5) == {"bound": {"upper_bound": 1}}
