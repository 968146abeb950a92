"""Score-CAM (Wang et al. 2020): the last feature maps, each weighted by the classifier's probability for what it shows.

As in COIN's comparison: the weight is the plain probability of the masked image (no softmax, no baseline's score
subtracted), and the maps are summed as they are, not min-max scaled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from flipside.methods.base.maps import (
    BASELINES,
    Baseline,
    MapMethod,
    MapParams,
    masked_probabilities,
    min_max_scale,
    upsample,
)


class ScoreCAMParams(MapParams):
    """Section `methods.score_cam`."""

    batch_size: PositiveInt
    """Masked images, one per feature map, per forward pass of the classifier."""
    baseline: Baseline
    """What a hidden pixel becomes: mid_grey (0) as published, or air (-1)."""


class ScoreCAM(MapMethod):
    """Feature maps, weighted by the probability of the image that they mask."""

    Params = ScoreCAMParams
    params: ScoreCAMParams

    @torch.no_grad()
    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        features = self.context.classifier.features(images).float()  # (B,C,h,w)
        return torch.stack([self.map_of(image, maps) for image, maps in zip(images, features, strict=True)])

    def map_of(self, image: Tensor, features: Tensor) -> Tensor:
        """Map (H,W) of one image (C,H,W) with its features (C,h,w)."""
        total = torch.zeros_like(image[0])  # (H,W)
        for part in features.split(self.params.batch_size):
            large = upsample(part, image)  # (M,h,w) -> (M,H,W)
            weights = masked_probabilities(self.context, image, min_max_scale(large),
                                           BASELINES[self.params.baseline])  # (M,)
            total += (weights @ large.flatten(1)).view_as(total)  # (M,) @ (M,H*W) -> (H,W)
        return F.relu(total)
