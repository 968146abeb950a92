"""Distances of borders and detection of lesions, from the rows of cases.csv."""

import numpy as np
import pandas as pd
import pytest

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.lesion_detection import LesionDetection
from flipside.metrics.families.surface_distance import SurfaceDistance

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")
# Two lesion cases of patient p, one of q that is missed, a healthy case, one whose lesion vanished.
CASES = pd.DataFrame({
    "patient_id": ["p", "p", "q", "q", "q"], "label": [1, 1, 1, 0, 1], "lesion_px": [4, 9, 5, 0, 0],
    "hd95_mm_label_free": [2.0, 4.0, 30.0, np.nan, np.nan], "asd_mm_label_free": [1.0, 2.0, 30.0, np.nan, np.nan],
    "missed_label_free": [0, 0, 1, np.nan, np.nan],
    "hd95_mm_val": [1.0, 1.0, 1.0, np.nan, np.nan], "asd_mm_val": [1.0, 1.0, 1.0, np.nan, np.nan],
    "missed_val": [0, 0, 0, np.nan, np.nan], "lesions": [1, 2, 1, np.nan, np.nan],
    "lesions_detected": [1, 1, 0, np.nan, np.nan], "fp_components": [0, 1, 0, 2, np.nan]})


def test_distances_are_over_lesion_cases_and_missed_lesions_count():
    found = SurfaceDistance().summarise(CASES, PARAMS, 0)
    assert (found["hd95_mm_label_free"], found["asd_mm_label_free"], found["n_missed_label_free"]) == (12, 11, 1)
    assert (found["hd95_mm_val"], found["n_missed_val"]) == (1, 0)


def test_patients_weigh_the_same_however_many_cases_they_have():
    found = SurfaceDistance().summarise(CASES, PARAMS, 0)
    assert found["hd95_mm_label_free_per_patient"] == pytest.approx((3 + 30) / 2)
    assert found["asd_mm_label_free_per_patient"] == pytest.approx((1.5 + 30) / 2)


def test_sensitivity_is_of_single_lesions():
    found = LesionDetection().summarise(CASES, PARAMS, 0)
    assert (found["n_lesions"], found["lesion_sensitivity"]) == (4, 0.5)


def test_false_components_are_counted_on_healthy_slices_too_but_not_where_the_lesion_vanished():
    found = LesionDetection().summarise(CASES, PARAMS, 0)
    assert (found["n_lesion_fp_per_slice"], found["lesion_fp_per_slice"]) == (4, 0.75)
