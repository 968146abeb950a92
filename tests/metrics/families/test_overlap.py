import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from flipside.core import row_batches
from flipside.masks.extraction.thresholds import POLICIES
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.overlap import (
    Overlap,
    confusion,
    cross_correlation,
    dice,
    iou,
    pixel_average_precision,
)

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")
MASKS = arrays.arrays(np.uint8, (5, 6, 7), elements=st.integers(0, 1))


@settings(max_examples=50, deadline=None)
@given(MASKS, MASKS)
def test_iou_and_dice_are_scikit_learns_bounded_and_symmetric(masks, truth):
    counts, swapped = confusion(masks, truth), confusion(truth, masks)
    for function, reference in ((iou, jaccard_score), (dice, f1_score)):
        values = function(*counts)
        np.testing.assert_array_equal(values, function(*swapped))
        for value, mask, true in zip(values, masks, truth, strict=True):
            if mask.any() or true.any():
                assert value == pytest.approx(reference(true.ravel(), mask.ravel(), zero_division=0))
                assert 0 <= value <= 1
            else:
                assert np.isnan(value)


def test_a_missed_lesion_scores_0_and_a_perfect_mask_1():
    truth = np.zeros((2, 4, 4), np.uint8)
    truth[:, 1:3, 1:3] = 1
    masks = truth * np.array([0, 1], np.uint8)[:, None, None]
    np.testing.assert_array_equal(iou(*confusion(masks, truth)), [0, 1])
    np.testing.assert_array_equal(dice(*confusion(masks, truth)), [0, 1])


def test_counts_do_not_depend_on_the_batches(monkeypatch):
    generator = np.random.default_rng(0)
    masks, truth = generator.integers(0, 2, (2, 11, 5, 5))
    whole = confusion(masks, truth)
    monkeypatch.setattr(row_batches, "BATCH_PIXELS", 3 * 25)
    np.testing.assert_array_equal(confusion(masks, truth), whole)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float16, (3, 5, 6), elements=st.floats(0, 1, width=16)), MASKS)
def test_average_precision_is_scikit_learns_with_ties(maps, truth):
    truth = truth[:3, :5, :6].copy()
    truth[:, 0, 0] = 1  # no lesion is empty
    maps = np.where(maps < 0.5, maps.round(1), maps)  # many equal pixels
    expected = [average_precision_score(true.ravel(), m.ravel().astype(float))
                for true, m in zip(truth, maps, strict=True)]
    np.testing.assert_allclose(pixel_average_precision(maps, truth), expected, rtol=1e-9)


def test_average_precision_of_a_constant_map_is_the_lesions_share():
    truth = np.zeros((1, 4, 5), np.uint8)
    truth[0, 0, :3] = 1
    for value in (0.0, -0.0, 1.0):
        assert pixel_average_precision(np.full((1, 4, 5), value, np.float16), truth)[0] == pytest.approx(3 / 20)


def test_maps_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"\[0,1\]"):
        pixel_average_precision(np.full((1, 2, 2), 1.5, np.float16), np.ones((1, 2, 2)))


def test_cross_correlation_is_pearsons_and_knows_no_scale():
    rng = np.random.default_rng(3)
    truth = (rng.random((3, 6, 7)) > 0.7).astype(np.uint8)
    maps = np.stack([rng.random((6, 7)), 0.2 + 0.5 * truth[1], np.full((6, 7), 0.4)]).astype(np.float32)
    found = cross_correlation(maps, truth)
    assert found[0] == pytest.approx(np.corrcoef(maps[0].ravel(), truth[0].ravel())[0, 1], abs=1e-6)
    assert found[1] == pytest.approx(1) and found[2] == 0


def segmentation_cases():
    cases = pd.DataFrame({
        "patient_id": ["p", "p", "q", "q", "q"], "label": [1, 1, 1, 0, 1], "lesion_px": [4, 9, 5, 3, 0],
        "pixel_ap": [0.2, 0.4, 0.6, np.nan, np.nan], "per": [0.1, 0.2, 0.3, 0.9, 0.9],
        "per_raw": [0.1, 0.2, 0.6, 0.9, 0.9],
        "ncc": [0.1, 0.2, 0.6, np.nan, np.nan],
        "fp_area": [0.5, 0.5, 0.5, 0.25, 0.7],
    })
    for policy in POLICIES:
        cases[[f"iou_{policy}", f"dice_{policy}", f"iou_{policy}_raw"]] = np.array([[0, .3, .6, np.nan, np.nan]] * 3).T
        cases[[f"marked_px_{policy}", f"marked_px_{policy}_raw"]] = np.array([[2, 4, 3, 1, 1]] * 2).T
    return cases


def overlap_metrics(cases):
    return Overlap().summarise(cases, PARAMS, 0)


def test_a_missed_lesion_counts_in_every_mean():
    found = overlap_metrics(segmentation_cases())
    assert found["iou_val"] == pytest.approx(0.3) and found["pixel_ap"] == pytest.approx(0.4)
    assert found["per_fixed"] == pytest.approx(0.2) and found["ncc"] == pytest.approx(0.3)
    assert found["per_fixed_raw"] == pytest.approx(0.3)
    # The healthy case holds a small lesion below the label's threshold: it stays a healthy case.
    assert found["fp_area_healthy"] == 0.25
    assert found["iou_val_ci_low"] <= found["iou_val"] <= found["iou_val_ci_high"]


def test_the_pooled_iou_is_that_of_all_pixels_together():
    found = overlap_metrics(segmentation_cases())  # 0, 3 and 3 pixels of 4, 9 and 5 are hit by 2, 4 and 3
    assert found["iou_pooled_val"] == found["iou_pooled_fixed_raw"] == pytest.approx(6 / (18 + 9 - 6))


def test_patients_weigh_the_same_however_many_cases_they_have():
    found = overlap_metrics(segmentation_cases())  # p has two lesion cases, q one
    assert found["iou_label_free_per_patient"] == pytest.approx((0.15 + 0.6) / 2)
    assert found["dice_label_free_per_patient"] == pytest.approx((0.15 + 0.6) / 2)
    assert found["pixel_ap_per_patient"] == pytest.approx((0.3 + 0.6) / 2)


def test_lesions_of_one_patient_have_no_interval():
    found = overlap_metrics(segmentation_cases().assign(patient_id="p"))
    assert "iou_val" in found and not [name for name in found if "_ci_" in name]


def test_without_healthy_slices_only_what_rests_on_them_is_absent():
    cases = segmentation_cases()
    whole = overlap_metrics(cases)
    found = overlap_metrics(cases[cases["label"] == 1])
    assert found == {name: value for name, value in whole.items() if name != "fp_area_healthy"}
