"""Control: a Gaussian around the image's centre, the same for every image. Shows how far the prior position gets."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor

from flipside.methods.base.maps import MapMethod, MapParams


class CentreParams(MapParams):
    """Section `methods.centre`."""

    sigma: PositiveFloat
    """Standard deviation of the Gaussian, as a fraction of the image's height and width."""


class Centre(MapMethod):
    """A Gaussian around the centre."""

    Params = CentreParams
    params: CentreParams

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        profiles = []
        for length in images.shape[-2:]:
            offset = (torch.arange(length, device=images.device) + 0.5) / length - 0.5  # 0 at the centre
            profiles.append(torch.exp(-(offset**2) / (2 * self.params.sigma**2)))
        prior = profiles[0][:, None] * profiles[1]  # (H,1) * (W,) -> (H,W)
        return prior.repeat(len(images), 1, 1)  # (H,W) -> (B,H,W)
