"""CAM (Zhou et al. 2016, eq. 2): the last feature maps, weighted as the linear layer behind the average pool does."""

from __future__ import annotations

import torch
from torch import Tensor

from flipside.methods.base.maps import MapMethod, upsample


class CAM(MapMethod):
    """Feature maps, weighted by the linear layer."""

    @torch.no_grad()
    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        classifier = self.context.classifier
        maps = torch.einsum("c,bchw->bhw", classifier.classifying_weights(), classifier.features(images))
        return upsample(maps, images)
