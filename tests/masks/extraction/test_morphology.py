import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage import measure, morphology

from flipside.masks.extraction.morphology import clean, largest_component

STACKS = arrays.arrays(bool, st.tuples(st.integers(1, 4), st.integers(3, 9), st.integers(3, 9)))
SQUARE = np.ones((3, 3), bool)


def reference(mask: np.ndarray, steps: list[str]) -> np.ndarray:
    """One slice (H,W) at a time, with scikit-image; pixels beyond the edge never decide."""
    for step in steps:
        if step == "open":
            mask = morphology.dilation(morphology.erosion(mask, SQUARE, mode="ignore"), SQUARE, mode="ignore")
        elif step == "close":
            mask = morphology.erosion(morphology.dilation(mask, SQUARE, mode="ignore"), SQUARE, mode="ignore")
        else:
            regions = measure.regionprops(measure.label(mask, connectivity=2))
            largest = max(regions, key=lambda region: (region.area, -region.label), default=None)
            kept = np.zeros_like(mask)
            if largest is not None:
                kept[tuple(largest.coords.T)] = True
            mask = kept
    return mask


@settings(max_examples=60, deadline=None)
@given(STACKS, st.permutations(["open", "close", "largest_component"]), st.integers(0, 3))
def test_a_stack_is_cleaned_as_each_slice_alone(masks, order, count):
    steps = order[:count]
    expected = np.stack([reference(mask, steps) for mask in masks])
    np.testing.assert_array_equal(clean(masks, steps), expected)
    np.testing.assert_array_equal(clean(masks.astype(np.uint8), steps), expected.astype(np.uint8))


@settings(max_examples=40, deadline=None)
@given(STACKS)
def test_opening_only_removes_and_closing_only_adds_at_the_edge_too(masks):
    assert not (clean(masks, ["open"]) & ~masks).any()
    assert not (masks & ~clean(masks, ["close"])).any()


@settings(max_examples=30, deadline=None)
@given(arrays.arrays(np.uint8, (2, 7, 6), elements=st.integers(0, 5)), st.integers(0, 4))
def test_cleaning_levels_and_cutting_is_cutting_and_cleaning(levels, threshold):
    steps = ["open", "close"]
    np.testing.assert_array_equal(clean(levels, steps) > threshold, clean(levels > threshold, steps))


def test_components_of_neighbouring_slices_are_never_joined():
    masks = np.zeros((2, 6, 6), bool)
    masks[0, :2, :3] = True  # 6 pixels, above the 4 of slice 1: joined they would be the largest of both
    masks[0, 4:, :4] = True  # 8 pixels
    masks[1, :2, :2] = True  # 4 pixels
    masks[1, 5, 3:] = True  # 3 pixels
    kept = largest_component(masks)
    assert kept[0, 4:, :4].all() and kept[0].sum() == 8
    assert kept[1, :2, :2].all() and kept[1].sum() == 4


def test_pixels_that_touch_at_a_corner_are_one_component():
    masks = np.eye(5, dtype=bool)[None]
    assert ndimage.label(masks[0])[1] == 5
    np.testing.assert_array_equal(largest_component(masks), masks)


def test_empty_masks_stay_empty_and_the_input_is_left_alone():
    masks = np.zeros((3, 5, 5), bool)
    masks[1, 2, 2] = True
    before = masks.copy()
    cleaned = clean(masks, ["close", "largest_component"])
    assert not cleaned[[0, 2]].any() and cleaned[1].sum() == 1
    assert not clean(masks, ["open"]).any()
    np.testing.assert_array_equal(masks, before)


def test_an_unknown_step_is_named():
    with pytest.raises(ValueError, match="'erode'"):
        clean(np.zeros((1, 4, 4), bool), ["erode"])
