import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage

from flipside.core import row_batches
from flipside.metrics.evaluation import EvaluateParams
from flipside.metrics.families.saliency import (
    COLUMNS,
    PERCENTILES,
    Saliency,
    centre_distance,
    measure_saliency,
    overlap_coefficient,
    percentile_masks,
)

PARAMS = EvaluateParams(cv_tau=0.8, change_bound=0.4, bootstrap_samples=200, confidence=0.95, reference_method="a")
MASK = arrays.arrays(bool, (6, 8)).filter(np.any)


def test_a_map_without_equal_pixels_is_cut_to_50_25_and_10_percent(monkeypatch):
    values = np.random.default_rng(0).permutation(2 * 400).reshape(2, 20, 20) / 2048  # distinct in float16
    masks = percentile_masks(values.astype(np.float16))
    for percentile, pixels in ((50, 200), (75, 100), (90, 40)):
        assert masks[percentile].sum(axis=(1, 2)).tolist() == [pixels, pixels]
    for mask in masks.values():
        assert (np.where(mask, values, 1).min(axis=(1, 2)) > np.where(mask, 0, values).max(axis=(1, 2))).all()
    monkeypatch.setattr(row_batches, "BATCH_PIXELS", 400)
    assert all(np.array_equal(mask, masks[p]) for p, mask in percentile_masks(values.astype(np.float16)).items())


def test_of_a_map_of_zeros_and_a_few_positive_pixels_these_are_marked():
    maps = np.zeros((1, 10, 10), np.float16)
    maps[0, 2, 3:7] = [0.1, 0.2, 0.3, 0.4]
    assert all(np.array_equal(mask, maps > 0) for mask in percentile_masks(maps).values())


def test_of_a_map_of_0_and_1_the_ones_are_marked_however_many_and_of_a_constant_map_nothing():
    maps = np.zeros((3, 10, 10), np.float16)
    maps[0, :4] = 1
    maps[1] = 0.7
    for mask in percentile_masks(maps).values():
        assert np.array_equal(mask, maps == 1)


@settings(max_examples=40, deadline=None)
@given(MASK, MASK, st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)))
def test_centre_distance_is_the_median_over_all_pairs_of_components(mask, truth, spacing):
    centres = []
    for part in (mask, truth):
        labels, count = ndimage.label(part, np.ones((3, 3)))
        centres.append(np.array(ndimage.center_of_mass(part, labels, range(1, count + 1))) * spacing)
    expected = np.median([np.linalg.norm(a - b) for a in centres[0] for b in centres[1]])
    found = centre_distance(np.stack([mask, truth]), np.stack([truth, truth]), np.array([spacing] * 2))
    assert found[0] == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(bool, (3, 4, 5)), arrays.arrays(bool, (3, 4, 5)))
def test_overlap_is_symmetric_bounded_and_1_for_a_mask_within_the_other(masks, others):
    found = overlap_coefficient(masks, others)
    np.testing.assert_array_equal(found, overlap_coefficient(others, masks))
    assert ((found >= 0) & (found <= 1)).all()
    filled = masks.any(axis=(1, 2))
    np.testing.assert_array_equal(overlap_coefficient(masks, masks | others), filled)
    for value, mask, other in zip(found, masks, others, strict=True):
        if mask.any() and other.any():
            assert value == (mask & other).sum() / min(mask.sum(), other.sum())
        else:
            assert value == 0


def scene():
    """A lesion of 4 x 5 in an organ of 10 x 10, lesion partly outside: organ and lesion cover 110 pixels."""
    truth, organ = np.zeros((2, 1, 20, 20), np.uint8)
    organ[0, 5:15, 5:15] = 1
    truth[0, 8:12, 13:18] = 1  # columns 15 to 17 are outside of the organ
    return truth, organ


def test_a_map_of_the_lesion_is_at_no_distance_and_covers_its_share_of_the_organ():
    truth, organ = scene()
    found = measure_saliency(truth.astype(np.float16), truth, organ, np.ones((1, 2)), truth * 0.5)
    assert set(found) == set(COLUMNS)
    for percentile in PERCENTILES:
        assert found[f"centre_distance_mm_p{percentile}"] == found[f"hausdorff_mm_p{percentile}"] == 0
        assert found[f"area_to_organ_p{percentile}"] == pytest.approx(20 / 112)
        assert found[f"overlap_reference_p{percentile}"] == 1


def test_a_blank_map_is_as_far_as_the_image_is_wide_marks_nothing_and_is_like_no_other():
    truth, organ = scene()
    found = measure_saliency(np.zeros(truth.shape, np.float16), truth, organ, np.array([[3.0, 4.0]]), truth * 0.5)
    for percentile in PERCENTILES:
        assert found[f"centre_distance_mm_p{percentile}"] == found[f"hausdorff_mm_p{percentile}"] == 100
        assert found[f"area_to_organ_p{percentile}"] == found[f"overlap_reference_p{percentile}"] == 0


def test_without_a_reference_there_is_no_overlap_and_without_an_organ_the_lesion_is_the_organ():
    truth, organ = scene()
    found = measure_saliency(truth.astype(np.float16), truth, np.zeros_like(organ), np.ones((1, 2)), None)
    assert set(found) == {name for name in COLUMNS if not name.startswith("overlap")}
    assert found["area_to_organ_p50"] == 1


def test_means_are_over_lesion_cases_and_the_reference_method_has_no_overlap_with_itself():
    cases = pd.DataFrame({"label": [1, 1, 1, 0, 1], "lesion_px": [4, 9, 5, 0, 0]})
    cases[list(COLUMNS)] = np.repeat([[1.0], [2.0], [6.0], [np.nan], [np.nan]], len(COLUMNS), axis=1)
    assert Saliency().summarise(cases, PARAMS, 0) == dict.fromkeys(COLUMNS, 3)
    overlaps = [name for name in COLUMNS if name.startswith("overlap")]
    found = Saliency().summarise(cases.assign(**dict.fromkeys(overlaps, np.nan)), PARAMS, 0)
    assert set(COLUMNS) - set(found) == set(overlaps) and len(overlaps) == 3
