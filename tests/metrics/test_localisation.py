import numpy as np
import pandas as pd
import pytest
from flipside.metrics.localisation import CHANGE, change_by_region, change_metrics, localisation_metrics

from flipside.metrics import saliency
from flipside.metrics import summary as metrics


def regions():
    """Images of 4 x 5 with the lesion at the organ's edge: 2 of its 3 pixels are organ."""
    lesion, organ = np.zeros((2, 2, 4, 5), np.uint8)
    organ[:, 1:3, 1:4] = 1
    lesion[:, 1, 2:5] = 1
    return lesion, organ


def test_change_is_measured_by_region_on_the_scale_0_to_1():
    lesion, organ = regions()
    images = np.full(lesion.shape, -1.0, np.float16)
    counterfactuals = images.copy()
    counterfactuals[0][lesion[0] == 1] = 1.0  # the whole range
    counterfactuals[0][(organ[0] == 1) & (lesion[0] == 0)] = 0.0
    counterfactuals[0, 0, 0] = -0.5
    found = change_by_region(images, counterfactuals, lesion, organ)
    assert tuple(found) == CHANGE
    first = {name: values[0] for name, values in found.items()}
    total = 3 * 1 + 4 * 0.5 + 0.25  # 3 lesion pixels, 4 of the organ's 6 outside of it, 13 elsewhere
    assert first == pytest.approx({"change_inside": 1, "change_outside": 2.25 / 17, "change_organ": 0.5,
                                   "change_background": 0.25 / 13, "change_inside_share": 3 / total,
                                   "ncc_change": np.corrcoef((images - counterfactuals)[0].ravel().astype(float),
                                                             lesion[0].ravel())[0, 1]})
    assert {name: values[1] for name, values in found.items()} == dict.fromkeys(CHANGE, 0)  # nothing changes


def test_a_region_that_an_image_lacks_has_no_number():
    lesion, organ = regions()
    organ[0] = 1
    organ[1] = 0
    images = np.zeros(lesion.shape)
    found = change_by_region(images, images + 0.5, lesion, organ)
    np.testing.assert_allclose(found["change_background"], [np.nan, 0.25])
    np.testing.assert_allclose(found["change_organ"], [0.25, np.nan])
    np.testing.assert_allclose(found["change_inside_share"], 3 / 20)


def test_regions_do_not_depend_on_the_batches(monkeypatch):
    generator = np.random.default_rng(0)
    images, counterfactuals = generator.uniform(-1, 1, (2, 7, 6, 6))
    lesion, organ = generator.integers(0, 2, (2, 7, 6, 6))
    whole = change_by_region(images, counterfactuals, lesion, organ)
    monkeypatch.setattr(metrics, "BATCH_PIXELS", 2 * 36)
    for name, values in change_by_region(images, counterfactuals, lesion, organ).items():
        np.testing.assert_array_equal(values, whole[name])


def change_cases():
    return pd.DataFrame({
        "label": [1, 1, 1, 1, 0], "lesion_px": [5, 5, 5, 0, 0], "f_x": [0.9, 0.5, 0.4, 0.9, 0.9],
        "change_inside": [0.4, 0.2, 0.9, np.nan, np.nan], "change_outside": [0.1, 0.3, 0.9, np.nan, np.nan],
        "change_organ": [0.1, np.nan, 0.9, np.nan, np.nan], "change_background": np.nan,
        "change_inside_share": [0.5, 0.3, 0.9, np.nan, np.nan], "ncc_change": [-0.5, 0.1, 0.9, np.nan, np.nan]})


def test_change_is_that_of_lesion_cases_called_abnormal_each_with_its_count():
    assert change_metrics(change_cases()) == pytest.approx({
        "n_change_inside": 2, "change_inside": 0.3, "n_change_outside": 2, "change_outside": 0.2, "n_change_organ": 1,
        "change_organ": 0.1, "n_change_background": 0, "n_change_inside_share": 2, "change_inside_share": 0.4,
        "n_ncc_change": 2, "ncc_change": -0.2,
        "change_inside_to_outside": 1.5})
    nowhere_else = change_cases().assign(change_outside=0.0)
    assert "change_inside_to_outside" not in change_metrics(nowhere_else)


def test_over_no_case_there_is_no_change_but_the_counts():
    assert change_metrics(change_cases().assign(f_x=0.1)) == {f"n_{name}": 0 for name in CHANGE}


def localisation_cases():
    """Two lesion cases of patient p, one of q that is missed, a healthy case, one whose lesion vanished."""
    cases = pd.DataFrame({
        "patient_id": ["p", "p", "q", "q", "q"], "label": [1, 1, 1, 0, 1], "lesion_px": [4, 9, 5, 0, 0],
        "iou_val": [0.4, 0.8, 0.0, np.nan, np.nan], "dice_val": [0.5, 0.9, 0.0, np.nan, np.nan],
        "pixel_ap": [0.2, 0.4, 0.9, np.nan, np.nan], "per_raw": [0.1, 0.2, 0.6, 0.9, 0.9],
        "hd95_mm_val": [2.0, 4.0, 30.0, np.nan, np.nan], "asd_mm_val": [1.0, 2.0, 30.0, np.nan, np.nan],
        "missed": [0, 0, 1, np.nan, np.nan], "lesions": [1, 2, 1, np.nan, np.nan],
        "lesions_detected": [1, 1, 0, np.nan, np.nan], "fp_components": [0, 1, 0, 2, np.nan]})
    cases[list(saliency.COLUMNS)] = np.repeat([[1.0], [2.0], [6.0], [np.nan], [np.nan]], len(saliency.COLUMNS), axis=1)
    return cases


def test_localisation_is_over_lesion_cases_and_missed_lesions_count():
    found = localisation_metrics(localisation_cases())
    assert found["hd95_mm_val"] == 12 and found["asd_mm_val"] == 11 and found["n_missed_val"] == 1
    assert found["per_fixed_raw"] == pytest.approx(0.3)
    assert (found["n_lesions"], found["lesion_sensitivity"]) == (4, 0.5)
    assert all(found[name] == 3 for name in saliency.COLUMNS)


def test_false_components_are_counted_on_healthy_slices_too_but_not_where_the_lesion_vanished():
    found = localisation_metrics(localisation_cases())
    assert (found["n_lesion_fp_per_slice"], found["lesion_fp_per_slice"]) == (4, 0.75)


def test_patients_weigh_the_same_however_many_cases_they_have():
    found = localisation_metrics(localisation_cases())
    assert found["iou_val_per_patient"] == pytest.approx((0.6 + 0) / 2)
    assert found["dice_val_per_patient"] == pytest.approx((0.7 + 0) / 2)
    assert found["pixel_ap_per_patient"] == pytest.approx((0.3 + 0.9) / 2)
    assert found["hd95_mm_val_per_patient"] == pytest.approx((3 + 30) / 2)
    assert found["asd_mm_val_per_patient"] == pytest.approx((1.5 + 30) / 2)


def test_the_reference_method_has_no_overlap_with_itself():
    overlaps = [name for name in saliency.COLUMNS if name.startswith("overlap")]
    found = localisation_metrics(localisation_cases().assign(**dict.fromkeys(overlaps, np.nan)))
    assert set(saliency.COLUMNS) - set(found) == set(overlaps) and len(overlaps) == 3
