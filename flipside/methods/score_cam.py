"""Score-CAM (Wang et al. 2020): the last feature maps, each weighted by the classifier's answer to what it shows.

As in COIN's comparison: the weight is the plain probability of the masked image (no softmax, no baseline's score taken
off), and the maps are summed as they are, not min-max scaled.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from flipside.methods.base.method import (
    BASELINES,
    AttributionMethod,
    AttributionParams,
    masked_probabilities,
    min_max_scale,
    upsample,
)


class MethodParams(AttributionParams):
    batch_size: PositiveInt
    """Masked images (one per channel) per forward pass."""
    baseline: Literal["mid_grey", "air"]
    """What a hidden pixel becomes; mid_grey (0) as published."""


class Method(AttributionMethod):
    params: MethodParams

    @torch.no_grad()
    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        features = self.context.classifier.features(images).float()  # (B,C,h,w)
        return torch.stack([self._map(image, maps) for image, maps in zip(images, features, strict=True)])

    def _map(self, image: Tensor, features: Tensor) -> Tensor:
        """Map (H,W) of one image (1,H,W) with its features (C,h,w)."""
        total = torch.zeros_like(image[0])  # (H,W)
        for part in features.split(self.params.batch_size):
            large = upsample(part, image)  # (M,h,w) -> (M,H,W)
            weights = masked_probabilities(self.context, image, min_max_scale(large),
                                           BASELINES[self.params.baseline])  # (M,)
            total += (weights @ large.flatten(1)).view_as(total)  # (M,) @ (M,H*W) -> (H,W)
        return F.relu(total)
