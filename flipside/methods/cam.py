"""CAM (Zhou et al. 2016, eq. 2): the last feature maps, weighted as the linear layer behind the average pool does."""

from __future__ import annotations

import torch
from torch import Tensor

from flipside.methods.base.cells import OnImage
from flipside.methods.base.maps import MapMethod, MapParams
from flipside.methods.base.method import Context


class CAM(MapMethod):
    """Feature maps, weighted by the linear layer."""

    def __init__(self, params: MapParams, context: Context):
        """Raises ValueError where the classifier has no such layer."""
        super().__init__(params, context)
        self.weights = context.classifier.classifying_weights()  # (C,)
        self.on_image = OnImage(context.classifier)

    @torch.no_grad()
    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        maps = torch.einsum("c,bchw->bhw", self.weights, self.context.classifier.features(images))
        return self.on_image(maps, images)
