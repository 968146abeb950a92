import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage.measure import label, regionprops

from flipside.metrics.components import centres, detect, find_boxes, find_components, numbers_by_slice

STACK = arrays.arrays(bool, (4, 7, 8))


@settings(max_examples=60, deadline=None)
@given(STACK)
def test_components_are_those_of_each_slice_alone(masks):
    found = find_components(masks)
    places, boxes = centres(found), find_boxes(found)
    for row, (mask, numbers) in enumerate(zip(masks, numbers_by_slice(found), strict=True)):
        regions = regionprops(label(mask, connectivity=2))
        own = np.arange(numbers.start, numbers.stop)
        assert (found.slice_of[own] == row).all()
        assert sorted(found.sizes[own]) == sorted(region.area for region in regions)
        for number in own:
            pixels = np.argwhere(found.labels[row] == number + 1)
            assert len(pixels) == found.sizes[number]
            np.testing.assert_allclose(places[number], pixels.mean(axis=0))
            assert [(side.start, side.stop - 1) for side in boxes[number]] == [
                (least, most) for least, most in zip(pixels.min(axis=0), pixels.max(axis=0), strict=True)]
    assert len(found.sizes) == len(boxes) == sum(numbers.stop - numbers.start for numbers in numbers_by_slice(found))


def slow_detect(mask, truth):
    lesions, n_lesions = ndimage.label(truth, np.ones((3, 3)))
    parts, n_parts = ndimage.label(mask, np.ones((3, 3)))
    detected = 0
    for n in range(1, n_lesions + 1):
        ious = [((lesions == n) & (parts == m)).sum() / ((lesions == n) | (parts == m)).sum()
                for m in range(1, n_parts + 1)]
        detected += max(ious, default=0) >= 0.1
    false = sum(not (truth & (parts == m)).any() for m in range(1, n_parts + 1))
    return n_lesions, detected, false


@settings(max_examples=80, deadline=None)
@given(STACK, STACK)
def test_detection_is_that_of_each_lesion_against_each_component(masks, truth):
    found = np.stack(detect(masks, truth), axis=1)
    assert [tuple(row) for row in found] == [slow_detect(*pair) for pair in zip(masks, truth, strict=True)]


def scene():
    """Two lesions of 10 x 10 pixels."""
    truth = np.zeros((1, 60, 60), np.uint8)
    truth[0, 5:15, 5:15] = truth[0, 5:15, 40:50] = 1
    return truth


@pytest.mark.parametrize(("pixels", "detected"), [(9, 0), (10, 1)])
def test_a_lesion_is_detected_from_an_iou_of_a_tenth_on(pixels, detected):
    mask = np.zeros_like(scene())
    mask[0, 5, 5:5 + pixels] = 1
    assert [int(count[0]) for count in detect(mask, scene())] == [2, detected, 0]


def test_a_component_beside_all_lesions_is_false_and_a_graze_is_neither():
    mask = np.zeros_like(scene())
    mask[0, 30:40, 30:40] = 1
    mask[0, 14:25, 40:41] = 1  # touches the second lesion with 1 pixel of 11
    assert [int(count[0]) for count in detect(mask, scene())] == [2, 0, 1]


def test_one_component_over_two_lesions_detects_both_and_a_flood_none():
    both, flood = np.zeros((2, 1, 60, 60), np.uint8)
    both[0, 5:15, 5:50] = 1
    flood[:] = 1  # 100 of 3600 pixels
    assert [int(count[0]) for count in detect(both, scene())] == [2, 2, 0]
    assert [int(count[0]) for count in detect(flood, scene())] == [2, 0, 0]


def test_an_empty_stack_has_no_component():
    nothing = np.zeros((3, 4, 5), np.uint8)
    assert len(find_components(nothing).sizes) == 0
    assert np.array_equal(detect(nothing, nothing), np.zeros((3, 3)))
    assert np.shape(detect(nothing[:0], nothing[:0])) == (3, 0)
