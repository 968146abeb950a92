"""Control of counterfactual metrics: the image smoothed by a Gaussian, so that neither lesion nor detail is left."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import PositiveFloat
from torch import Tensor

from flipside.methods.base.destruction import Destruction, DestructionParams


class BlurParams(DestructionParams):
    """Section `methods.blur`."""

    sigma: PositiveFloat
    """Standard deviation of the Gaussian, as a fraction of the image's height and width."""


class Blur(Destruction):
    """The image without its detail."""

    Params = BlurParams
    params: BlurParams

    def destroy(self, images: Tensor) -> Tensor:
        for axis in (2, 3):
            images = smooth(images, axis, self.params.sigma * images.shape[axis])
        return images.clamp(-1, 1)


def smooth(images: Tensor, axis: int, sigma: float) -> Tensor:
    """Images (B,C,H,W) convolved along the axis 2 or 3 with a Gaussian of `sigma` pixels, cut at 4 sigma; beyond its
    border an image goes on with the values that it has there."""
    reach = math.ceil(4 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), dim=0)
    channels = images.shape[1]
    kernel = weights.view((1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)).expand(channels, 1, -1, -1)
    border = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
    return F.conv2d(F.pad(images, border, mode="replicate"), kernel, groups=channels)
