import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from sklearn.metrics import average_precision_score, f1_score, jaccard_score

from flipside.metrics import summary as metrics
from flipside.metrics.summary import (
    EvaluateParams,
    EvaluationError,
    abnormal_metrics,
    change,
    confusion,
    counterfactual_metrics,
    cross_correlation,
    dice,
    difference_in_organ,
    iou,
    pixel_average_precision,
    segmentation_metrics,
)

PARAMS = EvaluateParams(cv_tau=0.8, bootstrap_samples=200, confidence=0.95, reference_method="a")
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
    monkeypatch.setattr(metrics, "BATCH_PIXELS", 3 * 25)
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


def ssim_by_definition(x, y):
    """Equation 13 of Wang et al. (2004), averaged where the 11x11 window fits."""
    def blur(image):
        return ndimage.gaussian_filter(image, 1.5, truncate=3.5)
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y, cov = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2, blur(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    values = (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return values[5:-5, 5:-5].mean()


def test_change_is_measured_on_the_scale_0_to_1():
    generator = np.random.default_rng(0)
    images = generator.uniform(-1, 1, (3, 20, 24)).astype(np.float16)
    others = np.clip(images + generator.normal(0, 0.3, images.shape), -1, 1).astype(np.float16)
    others[2] = images[2]
    l1, ssim = change(images, others)
    x, y = (images.astype(float) + 1) / 2, (others.astype(float) + 1) / 2
    np.testing.assert_allclose(l1, [np.abs(a - b).mean() for a, b in zip(x, y, strict=True)])
    np.testing.assert_allclose(ssim, [ssim_by_definition(a, b) for a, b in zip(x, y, strict=True)], rtol=1e-9)
    assert l1[2] == 0 and ssim[2] == pytest.approx(1)
    assert change(-np.ones((1, 16, 16)), np.ones((1, 16, 16)))[0][0] == 1


def counterfactual_cases(rows):
    return pd.DataFrame(rows, columns=["f_x", "f_x_cf", "judge_x", "judge_x_cf", "l1", "ssim"]).assign(
        perceptual_clf=lambda cases: cases["l1"] / 2, lpips=np.nan, cycle_l1=np.nan)


def test_counterfactual_rates_rest_on_their_own_populations():
    cases = counterfactual_cases([
        (0.95, 0.10, 0.9, 0.2, 0.1, 0.9),  # flipped, drop 0.85, judge convinced
        (0.99, 0.30, 0.9, 0.7, 0.3, 0.7),  # flipped, drop 0.69, judge not convinced
        (0.90, 0.50, 0.4, 0.1, 0.2, 0.8),  # exactly on the border is not flipped; the judge never called it abnormal
        (0.50, 0.40, 0.5, 0.5, 0.4, 0.6),  # exactly on both borders: abnormal, and still so for the judge
        (0.20, 0.95, 0.9, 0.1, 0.9, 0.1),  # called healthy: in no population
    ])
    found = counterfactual_metrics(cases, PARAMS)
    assert (found["n_success_rate"], found["success_rate"]) == (4, 3 / 4)
    assert (found["n_cv"], found["cv"]) == (3, 1 / 3)
    assert (found["n_judge_flip_rate"], found["judge_flip_rate"]) == (3, 1 / 3)
    assert found["l1"] == pytest.approx(0.25) and found["ssim"] == pytest.approx(0.75)
    assert found["perceptual_clf"] == pytest.approx(0.125) and "lpips" not in found
    assert counterfactual_metrics(cases.assign(lpips=cases["l1"]), PARAMS)["lpips"] == pytest.approx(0.25)
    assert "cycle_l1" not in found
    assert counterfactual_metrics(cases.assign(cycle_l1=cases["l1"]), PARAMS)["cycle_l1"] == pytest.approx(0.25)
    assert found["success_rate_ci_low"] < 0.75 < found["success_rate_ci_high"]


def test_a_rate_over_no_case_is_absent_and_its_count_0():
    found = counterfactual_metrics(counterfactual_cases([(0.1, 0.1, 0.9, 0.9, 0.1, 0.9)]), PARAMS)
    assert found == {"n_success_rate": 0, "n_cv": 0, "n_judge_flip_rate": 0}


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
    ]), PARAMS)
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
    found = abnormal_metrics(cases, PARAMS)
    assert (found["n_judge_flip_rate_to_abnormal"], found["judge_flip_rate_to_abnormal"]) == (3, 2 / 3)
    assert found["judge_flip_rate_to_abnormal_ci_low"] < 2 / 3 < found["judge_flip_rate_to_abnormal_ci_high"]


def test_without_slices_called_healthy_there_are_only_counts():
    found = abnormal_metrics(abnormal_cases([(0.6, 0.1, 0.9, 0.5, 1, 0.5)]), PARAMS)
    assert found == {"n_success_rate_to_abnormal": 0, "n_cv_to_abnormal": 0, "n_cv_both_directions": 0,
                     "n_judge_flip_rate_to_abnormal": 0, "n_added_in_organ": 0, "n_added_peak_in_organ": 0}


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
        "ncc": [0.1, 0.2, 0.6, np.nan, np.nan],
        "fp_area": [0.5, 0.5, 0.5, 0.25, 0.7],
    })
    for policy in metrics.POLICIES:
        cases[[f"iou_{policy}", f"dice_{policy}", f"iou_{policy}_raw"]] = np.array([[0, .3, .6, np.nan, np.nan]] * 3).T
    return cases


def test_segmentation_counts_missed_lesions_and_tells_of_vanished_ones():
    found = segmentation_metrics(segmentation_cases(), {"iou_pooled_val": 0.5}, PARAMS, 0)
    assert (found["n_cases"], found["n_healthy"], found["n_patients"], found["n_lesion_vanished"]) == (3, 1, 2, 1)
    assert found["iou_val"] == pytest.approx(0.3) and found["pixel_ap"] == pytest.approx(0.4)
    assert found["per_fixed"] == pytest.approx(0.2) and found["ncc"] == pytest.approx(0.3)
    # The healthy case holds a small lesion below the label's threshold: it stays a healthy case.
    assert found["fp_area_healthy"] == 0.25 and found["iou_pooled_val"] == 0.5
    assert found["iou_val_ci_low"] <= found["iou_val"] <= found["iou_val_ci_high"]


def test_lesions_of_one_patient_have_no_interval():
    found = segmentation_metrics(segmentation_cases().assign(patient_id="p"), {}, PARAMS, 0)
    assert "iou_val" in found and not [name for name in found if "_ci_" in name]


def test_a_test_split_without_lesions_is_refused():
    cases = segmentation_cases()
    with pytest.raises(EvaluationError, match="slice with a lesion"):
        segmentation_metrics(cases[cases["label"] == 0], {}, PARAMS, 0)


def test_without_healthy_slices_only_what_rests_on_them_is_absent():
    cases = segmentation_cases()
    whole = segmentation_metrics(cases, {"iou_pooled_val": 0.5}, PARAMS, 0)
    found = segmentation_metrics(cases[cases["label"] == 1], {"iou_pooled_val": 0.5}, PARAMS, 0)
    assert found == {name: value for name, value in whole.items() if name != "fp_area_healthy"} | {"n_healthy": 0}
