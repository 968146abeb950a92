"""Metrics of images with several channels: the same for a channel repeated, means over different ones."""

import numpy as np
import pytest

from flipside.metrics.families.change_by_region import change_by_region
from flipside.metrics.families.image_change import change
from flipside.metrics.families.made_abnormal import difference_in_organ
from flipside.metrics.psnr import psnr


@pytest.fixture
def images():
    """Two stacks (N,C,H,W) = (5,3,16,20) in [-1,1] whose channels differ, and masks of lesion and organ."""
    rng = np.random.default_rng(0)
    first = rng.uniform(-1, 1, (5, 3, 16, 20))
    second = np.clip(first + rng.normal(0, 0.2, first.shape) * [[[[1.0]], [[0.3]], [[2.0]]]], -1, 1)
    lesion, organ = np.zeros((2, 5, 16, 20), np.uint8)
    lesion[:, 2:6, 3:9] = 1
    organ[:, 1:12, 2:15] = 1
    return first, second, lesion, organ


def measured(first, second, lesion, organ):
    """Every measure of two stacks by name, (N,) each."""
    l1, ssim = change(first, second)
    share, _ = difference_in_organ(first, second, organ)
    return {"l1": l1, "ssim": ssim, "psnr": psnr(first, second), "in_organ": share,
            **change_by_region(first, second, lesion, organ)}


@pytest.mark.parametrize("channels", [3, 4])
def test_a_repeated_channel_changes_no_metric(images, channels):
    first, second, *masks = images
    one = measured(first[:, 0], second[:, 0], *masks)
    several = measured(first[:, [0] * channels], second[:, [0] * channels], *masks)
    for name, values in one.items():
        np.testing.assert_allclose(several[name], values, err_msg=name)


def test_different_channels_count_equally(images):
    first, second, lesion, organ = images
    found = measured(first, second, lesion, organ)
    each = [measured(first[:, number], second[:, number], lesion, organ) for number in range(3)]
    for name in ("l1", "ssim", "change_inside", "change_outside", "change_organ", "change_background"):
        np.testing.assert_allclose(found[name], np.mean([one[name] for one in each], axis=0), err_msg=name)
    errors = ((first - second) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found["psnr"], 10 * np.log10(4 / errors))
