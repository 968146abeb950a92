"""Score-CAM (Wang et al. 2020): feature maps, each weighted by the classifier's probability for what it shows.

As in COIN's comparison: the weight is the plain probability of the masked image (no softmax, no baseline's score
subtracted), and the maps are summed as they are, not min-max scaled.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor

from flipside.methods.base.feature_maps import FeatureMapMethod, FeatureMapParams
from flipside.methods.base.folding import folded
from flipside.methods.base.maps import BASELINES, Baseline, masked_probabilities, min_max_scale
from flipside.methods.base.method import Context


class ScoreCAMParams(FeatureMapParams):
    """Section `methods.score_cam`."""

    batch_size: PositiveInt
    """Masked images, one per feature map, per forward pass of the classifier."""
    baseline: Baseline
    """What a hidden pixel becomes: mid_grey (0) as published, or air (-1)."""


class ScoreCAM(FeatureMapMethod):
    """Feature maps, weighted by the probability of the image that they mask."""

    Params = ScoreCAMParams
    params: ScoreCAMParams

    def __init__(self, params: ScoreCAMParams, context: Context):
        super().__init__(params, context)
        self.classifier = folded(context.classifier)

    @torch.no_grad()
    def coarse_maps(self, images: Tensor) -> list[Tensor]:
        chosen = self.choose(self.context.classifier.view(images).maps, images)  # (B,C,h,w) each
        return [torch.stack([self.coarse_map(*pair) for pair in zip(images, features.float(), strict=True)])
                for features in chosen]

    def coarse_map(self, image: Tensor, features: Tensor) -> Tensor:
        """Map (h,w) of one image (C,H,W) with its features (F,h,w)."""
        baseline = BASELINES[self.params.baseline]
        weights = torch.cat([
            masked_probabilities(self.classifier, self.context.runtime, image,
                                 min_max_scale(self.on_image(part, image[None])), baseline)
            for part in features.split(self.params.batch_size)])  # (F,)
        return F.relu(torch.einsum("f,fhw->hw", weights, features))
