import numpy as np
import pandas as pd
import pytest

from flipside.core import row_batches
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.change_by_region import CHANGE, ChangeByRegion, change_by_region

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")


def change_metrics(cases):
    return ChangeByRegion().summarise(cases, PARAMS, 0)


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
    monkeypatch.setattr(row_batches, "BATCH_PIXELS", 2 * 36)
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
