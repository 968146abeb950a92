"""How slices of any number of channels reach networks that were trained on photographs."""

import numpy as np
import pytest
import torch

from flipside.classifiers.networks.pretrained import (
    ALEXNET,
    INCEPTION,
    INCEPTION_DIMS,
    inception_features,
    lpips_distances,
    to_rgb,
)
from flipside.core.runtime import Runtime, RuntimeParams

RUNTIME = Runtime(RuntimeParams(device="cpu", threads=1))


def slices(channels, seed=0):
    """(5,C,8,8), of one channel (5,8,8)."""
    images = np.random.default_rng(seed).uniform(-1, 1, (5, channels, 8, 8)).astype(np.float16)
    return images[:, 0] if channels == 1 else images


def inception(rgb):
    """In place of Inception: maps that show the first and the last colour, at their own size."""
    ramp = torch.stack([rgb[:, 0], rgb[:, 2] ** 2], dim=1)  # (B,2,H,W)
    return [ramp.repeat(1, dim // 2, 1, 1) for dim in INCEPTION_DIMS]


def lpips(one, other):
    """In place of LPIPS: colours with weights of their own."""
    return ((one - other).abs() * torch.tensor([1.0, 2.0, 4.0])[:, None, None]).mean(dim=(1, 2, 3), keepdim=True)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_features_are_means_over_channels_that_went_in_as_grey(channels):
    images = slices(channels)
    found = inception_features(inception, images, RUNTIME, batch_size=2)
    assert {dim: values.shape for dim, values in found.items()} == {dim: (5, dim) for dim in INCEPTION_DIMS}
    unit = (images.astype(np.float64).reshape(5, channels, 8, 8) + 1) / 2
    first, last = (unit[:, 0], unit[:, 2] ** 2) if channels == 3 else (unit.mean(axis=1), (unit**2).mean(axis=1))
    expected = np.stack([first.mean(axis=(1, 2)), last.mean(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(found[64][:, :2], expected, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_distances_are_means_over_channels_that_went_in_as_grey(channels):
    images, others = slices(channels), slices(channels, seed=1)
    found = lpips_distances(lpips, images, others, RUNTIME, batch_size=2)
    change = np.abs(images.astype(np.float64) - others.astype(np.float64)).reshape(5, channels, 64)
    weights = [1, 2, 4] if channels == 3 else [7 / 3] * channels
    np.testing.assert_allclose(found, (change.mean(axis=2) * weights).mean(axis=1), rtol=1e-4)


def test_three_channels_keep_their_colours():
    images = slices(3)
    assert torch.equal(to_rgb(images, RUNTIME), torch.as_tensor(images).float())


def test_weights_are_looked_for_where_their_libraries_have_them():
    from pytorch_fid.inception import FID_WEIGHTS_URL
    from torchvision.models import AlexNet_Weights

    assert INCEPTION.url == FID_WEIGHTS_URL and ALEXNET.url == AlexNet_Weights.IMAGENET1K_V1.url
