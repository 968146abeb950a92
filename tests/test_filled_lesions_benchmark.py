"""Lesions filled from what lies around them, as the benchmark asks a classifier about them."""

import numpy as np
import pytest

from benchmarks.filled_lesions import fill


@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_lesion_gives_way_to_the_slope_that_it_lay_on_and_nothing_else_changes(channels):
    slope = np.broadcast_to(np.linspace(-0.5, 0.5, 64, dtype=np.float32), (*channels, 64, 64))
    lesion = np.zeros((64, 64), bool)
    lesion[20:30, 20:30] = True
    image = np.where(lesion, np.float32(0.9), slope)
    blurred = image.copy()
    blurred[..., 19, 18:32] = 0.4  # its edge reaches beyond the mask
    filled = fill(blurred.astype(np.float16), lesion)
    assert filled.shape == image.shape and filled.dtype == np.float16
    np.testing.assert_allclose(filled.astype(np.float32), slope, atol=2e-3)


def test_a_slice_that_is_nearly_all_lesion_is_left_out():
    lesion = np.zeros((64, 64), bool)
    lesion[:, 8:56] = True
    assert fill(np.zeros((64, 64), np.float16), lesion) is None
