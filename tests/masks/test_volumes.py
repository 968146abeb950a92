"""The clean-up of a volume's mask, against what can be counted by hand."""

import numpy as np
import pytest

from flipside.masks.volumes import VolumeParams, bounding_box, clean_volume, largest_component_voxels, vote_along_z


def params(**changes):
    return VolumeParams(**{"vote_slices": 1, "fill_holes": False, "components": "all", "least_mm3": 0.0} | changes)


def blocks():
    """A cube of 5 x 5 x 5 with a hollow in it, and a bar of 2 x 3 x 1 apart."""
    mask = np.zeros((8, 12, 14), np.uint8)
    mask[1:6, 1:6, 1:6] = 1
    mask[3, 3, 3] = 0
    mask[6, 9:11, 9:12] = 1
    return mask


ALL = np.arange(8)


def test_switched_off_it_changes_nothing():
    mask = blocks()
    np.testing.assert_array_equal(clean_volume(mask, ALL, 1.0, params()), mask)
    assert not clean_volume(np.zeros_like(mask), ALL, 1.0, params(fill_holes=True, vote_slices=3)).any()
    assert mask.sum() == 124 + 6  # the input stays as it was


def test_hollows_are_filled_but_not_what_is_open():
    mask = blocks()
    assert clean_volume(mask, ALL, 1.0, params(fill_holes=True)).sum() == 125 + 6
    mask[:, 3, 3] = 0  # a tunnel through all slices
    np.testing.assert_array_equal(clean_volume(mask, ALL, 1.0, params(fill_holes=True)), mask)


def test_components_by_volume_and_the_largest():
    mask = blocks()
    assert clean_volume(mask, ALL, 0.5, params(least_mm3=3.0)).sum() == 130  # 6 voxels of 0.5 mm3 are just enough
    assert clean_volume(mask, ALL, 0.5, params(least_mm3=3.1)).sum() == 124
    assert clean_volume(mask, ALL, 1.0, params(components="largest")).sum() == 124
    assert not clean_volume(mask, ALL, 1.0, params(least_mm3=1e3)).any()
    assert largest_component_voxels(mask) == 124 and largest_component_voxels(mask * 0) == 0


def test_voxels_that_touch_at_a_corner_are_one_component():
    mask = np.zeros((3, 4, 4), np.uint8)
    mask[0, 0, 0] = mask[1, 1, 1] = mask[2, 2, 2] = 1
    assert largest_component_voxels(mask) == 3


def test_the_vote_against_a_count_by_hand():
    random = np.random.default_rng(0)
    mask = random.random((9, 5, 6)) < 0.5
    explained = np.array([0, 1, 2, 3, 5, 6, 8])
    mask[[4, 7]] = False
    for slices in (3, 5):
        voted = vote_along_z(mask, explained, slices)
        for z in range(9):
            near = [other for other in explained if abs(other - z) <= slices // 2]
            for place in np.ndindex(5, 6):
                votes = sum(bool(mask[(other, *place)]) for other in near)
                expected = votes * 2 > len(near) or (votes * 2 == len(near) and mask[(z, *place)])
                assert voted[(z, *place)] == (expected and z in explained)


def test_a_lesion_in_one_slice_is_voted_down_and_a_missing_slice_voted_in():
    mask = np.zeros((7, 4, 4), np.uint8)
    mask[[1, 2, 4, 5], 1:3, 1:3] = 1
    mask[0, 3, 3] = 1
    voted = clean_volume(mask, np.arange(7), 1.0, params(vote_slices=3))
    assert voted[1:6, 1:3, 1:3].all() and voted[3, 1, 1] and not voted[6].any()
    assert voted[0, 3, 3]  # at the end two slices vote: even, so the pixel stays
    mask[0, 3, 3], mask[3, 3, 3] = 0, 1
    assert not clean_volume(mask, np.arange(7), 1.0, params(vote_slices=3))[3, 3, 3]


def test_an_even_number_of_voters_is_refused():
    with pytest.raises(ValueError, match="must be odd"):
        params(vote_slices=4)
    assert bounding_box(np.zeros((2, 2, 2), bool)) is None
