"""Colours and scales of the pictures."""

from __future__ import annotations

import numpy as np

from flipside.report import pictures


def test_overlay_colours_and_difference_scale():
    scan = np.full((2, 2), -1.0, np.float16)
    mask, lesion = np.array([[1, 1], [0, 0]]), np.array([[1, 0], [1, 0]])
    picture = pictures.mask_overlay(scan, mask, lesion)
    assert [int(picture[0, 0].argmax()), int(picture[0, 1].argmax())] == [1, 0]  # green hit, red false alarm
    assert picture[1, 0, 0] > 100 and picture[1, 0, 1] > 100 and picture[1, 0, 2] < 60  # yellow miss
    assert picture[1, 1].tolist() == [0, 0, 0]
    unchanged, darker = pictures.difference(scan, scan), pictures.difference(np.ones((2, 2)), scan)
    assert unchanged.max() < 40 and (darker[..., 2] > darker[..., 0]).all()


def test_red_green_and_blue_are_shown_in_colour():
    image = np.stack([np.full((2, 3), 1.0), np.full((2, 3), 0.0), np.full((2, 3), -1.0)])  # (3,H,W)
    assert pictures.picture(image).shape == (2, 3, 3)
    assert pictures.picture(image)[0, 0].tolist() == [255, 128, 0]


def test_a_difference_is_the_mean_of_the_signed_change_over_all_channels():
    before, after = np.zeros((4, 2, 2)), np.zeros((4, 2, 2))
    after[0], after[1] = 0.4, -0.4  # cancel
    assert np.array_equal(pictures.difference(before, after), pictures.difference(before[0], before[0]))
    after[1] = 0.0
    assert np.array_equal(pictures.difference(before, after), pictures.difference(before[0], np.full((2, 2), 0.1)))
