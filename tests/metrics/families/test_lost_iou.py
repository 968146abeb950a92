"""What the IoU is lost to: four parts that add up, against a slow reference that looks at one slice at a time."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.lost_iou import LostIou, divide_lost_iou
from flipside.metrics.families.overlap import confusion, iou

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")
UNDER, OVER, PLACE, CLASSIFIER = LostIou.columns
# Mostly empty rows, so that empty masks and masks beside the lesion are drawn too.
MASKS = arrays.arrays(np.uint8, (6, 2, 3), elements=st.sampled_from([0, 0, 0, 1]))


def lost(mask, truth, called_healthy):
    """{part: lost IoU} of one slice, by sets of pixels."""
    marked, lesion = ({(i, j) for i, row in enumerate(each) for j, pixel in enumerate(row) if pixel}
                      for each in (mask, truth))
    parts = dict.fromkeys((UNDER, OVER, PLACE, CLASSIFIER), 0.0)
    if not marked and called_healthy:
        parts[CLASSIFIER] = 1.0
    elif marked and not marked & lesion:
        parts[PLACE] = 1.0
    else:
        parts[UNDER] = len(lesion - marked) / len(marked | lesion)
        parts[OVER] = len(marked - lesion) / len(marked | lesion)
    return parts


@settings(max_examples=50, deadline=None)
@given(MASKS, MASKS, arrays.arrays(bool, 6))
def test_the_parts_are_a_slow_references_and_add_up_to_the_lost_iou(masks, truth, called_healthy):
    truth = truth.copy()
    truth[:, 0, 0] = 1  # no lesion is empty
    counts = confusion(masks, truth)
    found = divide_lost_iou(*counts, called_healthy)
    np.testing.assert_allclose(found.sum(axis=1), 1 - iou(*counts), atol=1e-12)
    for row, mask, true, healthy in zip(found, masks, truth, called_healthy, strict=True):
        assert dict(zip(LostIou.columns, row, strict=True)) == pytest.approx(lost(mask, true, healthy))


def test_every_kind_of_failure_has_its_part():
    truth = np.zeros((6, 4, 4), np.uint8)
    truth[:, 0, :2] = 1
    masks = np.zeros_like(truth)
    masks[2, 3] = 1  # elsewhere
    masks[3, 0, 0] = 1  # half of the lesion
    masks[4, 0] = 1  # twice the lesion
    masks[5, 0, 1:3] = 1  # one pixel to the side
    found = divide_lost_iou(*confusion(masks, truth), np.array([True, False, True, False, False, True]))
    assert found.round(3).tolist() == [[0, 0, 0, 1],  # empty: the classifier calls it healthy
                                       [1, 0, 0, 0],  # empty though called abnormal
                                       [0, 0, 1, 0],  # marked although called healthy, as without a gate
                                       [0.5, 0, 0, 0], [0, 0.5, 0, 0], [0.333, 0.333, 0, 0]]


def test_means_are_over_lesion_cases_with_intervals_over_patients():
    cases = pd.DataFrame({"patient_id": ["p", "p", "q", "q", "q"], "label": [1, 1, 1, 0, 1],
                          "lesion_px": [4, 9, 5, 3, 0], UNDER: [0.2, 0.4, 0, np.nan, np.nan],
                          OVER: [0.1, 0.2, 0, np.nan, np.nan], PLACE: 0.0, CLASSIFIER: [0, 0, 1, np.nan, np.nan]})
    found = LostIou().summarise(cases, PARAMS, 0)
    assert [found[name] for name in LostIou.columns] == pytest.approx([0.2, 0.1, 0, 1 / 3])
    # One of the two patients drawn twice, or both once.
    assert (found[f"{CLASSIFIER}_ci_low"], found[f"{CLASSIFIER}_ci_high"]) == (0, 1)
    assert set(LostIou().summarise(cases.assign(patient_id="p"), PARAMS, 0)) == set(LostIou.columns)
