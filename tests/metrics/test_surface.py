import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import ndimage
from skimage.metrics import hausdorff_distance

from flipside.core import row_batches
from flipside.metrics.surface import border, diagonal, hausdorff, surface_distances

MASK = arrays.arrays(bool, (7, 9)).filter(np.any)
SPACING = st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)).map(np.array)


def border_points(mask, spacing):
    """Border pixels one by one, in mm."""
    inside = {(r, c) for r, c in np.argwhere(mask).tolist()}
    return np.array([(r, c) for r, c in sorted(inside)
                     if not {(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)} <= inside]) * spacing


def all_pairs(first, second):
    """Each point's distance to the nearest of the others, both ways, from all pairs."""
    distances = np.sqrt(((first[:, None] - second[None]) ** 2).sum(axis=-1))
    return distances.min(axis=1), distances.min(axis=0)


def one(function, mask, truth, spacing):
    if function is hausdorff:
        return hausdorff([mask[None]], truth[None], np.asarray(spacing, float)[None])[0, 0]
    return tuple(value[0] for value in function(mask[None], truth[None], np.asarray(spacing, float)[None]))


@settings(max_examples=60, deadline=None)
@given(MASK, MASK, SPACING)
def test_surface_distances_are_those_of_all_pairs_of_border_pixels(mask, truth, spacing):
    there, back = all_pairs(border_points(mask, spacing), border_points(truth, spacing))
    hd95, average = one(surface_distances, mask, truth, spacing)
    assert hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)))
    assert average == pytest.approx(np.concatenate([there, back]).mean())


@settings(max_examples=60, deadline=None)
@given(MASK, MASK, SPACING)
def test_surface_distances_are_symmetric_bounded_and_0_for_equal_masks(mask, truth, spacing):
    forward, backward = (one(surface_distances, *pair, spacing) for pair in ((mask, truth), (truth, mask)))
    assert forward == pytest.approx(backward)
    limit = diagonal((1, *mask.shape), spacing[None])[0]
    assert 0 <= forward[0] < limit and 0 <= forward[1] < limit
    assert one(surface_distances, mask, mask, spacing) == (0, 0)
    assert one(surface_distances, mask, truth, 3 * spacing) == pytest.approx(tuple(3 * np.array(forward)))


def test_distances_count_rows_and_columns_by_their_own_spacing():
    mask, down, across = np.zeros((3, 20, 20), bool)
    mask[5, 5] = down[9, 5] = across[5, 9] = True
    for measure in (lambda *a: one(surface_distances, *a), lambda *a: (one(hausdorff, *a),) * 2):
        assert measure(mask, down, (0.5, 3.0)) == (2.0, 2.0)
        assert measure(mask, across, (0.5, 3.0)) == (12.0, 12.0)


def test_an_empty_mask_scores_the_images_diagonal_whatever_the_lesion():
    truth = np.zeros((2, 30, 40), np.uint8)
    truth[0, 3, 3] = 1
    truth[1] = 1
    spacing = np.array([[1.0, 1.0], [2.0, 0.5]])
    expected = [50.0, np.hypot(60, 20)]
    hd95, average = surface_distances(np.zeros_like(truth), truth, spacing)
    for values in (hd95, average, hausdorff([np.zeros(truth.shape, bool)], truth, spacing)[0]):
        np.testing.assert_allclose(values, expected)


def test_a_mask_that_fills_the_image_has_the_images_edge_as_border():
    assert border(np.ones((1, 4, 5), bool)).sum() == 14


def test_95_of_100_border_pixels_decide_not_the_farthest():
    truth = np.zeros((1, 64, 64), bool)
    truth[0, 10:40, 10:40] = True
    mask = truth.copy()
    mask[0, 60, 60] = True  # one stray pixel
    spacing = np.ones((1, 2))
    hd95, average = surface_distances(mask, truth, spacing)
    assert hd95[0] == 0 and average[0] > 0
    assert hausdorff([mask], truth, spacing)[0, 0] == pytest.approx(np.hypot(21, 21))


def test_surface_distances_do_not_depend_on_the_batches(monkeypatch):
    generator = np.random.default_rng(0)
    masks, truth = generator.random((2, 9, 8, 8)) < 0.3
    spacing = generator.uniform(0.5, 2, (9, 2))
    whole = surface_distances(masks, truth, spacing)
    monkeypatch.setattr(row_batches, "BATCH_PIXELS", 2 * 64)
    np.testing.assert_array_equal(surface_distances(masks, truth, spacing), whole)


@settings(max_examples=40, deadline=None)
@given(MASK, MASK, SPACING)
def test_hausdorff_is_the_median_over_lesions_of_all_pairs_of_pixels(mask, truth, spacing):
    labels, count = ndimage.label(truth, np.ones((3, 3)))
    expected = [max(map(np.max, all_pairs(np.argwhere(mask) * spacing, np.argwhere(labels == n + 1) * spacing)))
                for n in range(count)]
    assert one(hausdorff, mask, truth, spacing) == pytest.approx(np.median(expected))


def test_hausdorff_is_exact_wherever_mask_and_lesion_lie_in_a_large_image():
    generator = np.random.default_rng(0)
    truth, *stacks = np.zeros((4, 30, 40, 50), bool)
    for row in range(30):
        for stack, count in ((truth, 2), (stacks[0], 1), (stacks[1], 3), (stacks[2], row % 3)):
            for _ in range(count):
                top, left, height, width = generator.integers([0, 0, 1, 1], [39, 49, 12, 12])
                stack[row, top:top + height, left:left + width] = True
    spacing = generator.uniform(0.3, 4, (30, 2))
    found = hausdorff(stacks, truth, spacing)
    for values, stack in zip(found, stacks, strict=True):
        for value, mask, true, mm in zip(values, stack, truth, spacing, strict=True):
            labels, count = ndimage.label(true, np.ones((3, 3)))
            expected = [max(map(np.max, all_pairs(np.argwhere(mask) * mm, np.argwhere(labels == n + 1) * mm)))
                        for n in range(count)] if mask.any() else np.hypot(*(mm * true.shape))
            assert value == pytest.approx(np.median(expected))


@settings(max_examples=40, deadline=None)
@given(MASK, MASK)
def test_hausdorff_to_a_single_lesion_is_scikit_images(mask, truth):
    labels, _ = ndimage.label(truth, np.ones((3, 3)))
    truth = labels == 1
    assert one(hausdorff, mask, truth, (1, 1)) == pytest.approx(hausdorff_distance(mask, truth))
