"""Control of counterfactual metrics: the image smoothed by a Gaussian, so that neither lesion nor detail is left."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from scipy.ndimage import gaussian_filter
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
        """Beyond its border an image goes on with the values that it has there."""
        sigma = (0, 0, self.params.sigma * images.shape[2], self.params.sigma * images.shape[3])
        blurred = gaussian_filter(images.cpu().numpy(), sigma, mode="nearest")
        return torch.as_tensor(blurred, device=images.device).clamp(-1, 1)
