"""The CAM family's common part: which of the classifier's feature maps are weighted, and how several become one map.

The publications take the last feature maps. In networks for small images these are coarse: 8 x 8 cells for 64 x 64
pixels. Maps of earlier layers are finer but know less, and of several sizes the geometric mean is bright only where all
of them are.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor

from flipside.classifiers.networks.view import by_stride
from flipside.methods.base.cells import OnImage
from flipside.methods.base.maps import MapMethod, MapParams, min_max_scale
from flipside.methods.base.method import Context

Strides = Literal["last"] | Annotated[list[PositiveInt], Field(min_length=1)]


class FeatureMapParams(MapParams):
    """Parameters of a method that weights feature maps."""

    strides: Strides
    """Which feature maps: [2, 4] means the last ones at 1/2 and the last ones at 1/4 of the image's side; of several,
    the geometric mean of the maps, each min-max scaled. last: the network's last ones, as published."""


class FeatureMapMethod(MapMethod):
    """Base of these methods: they define `coarse_maps`."""

    Params: ClassVar[type[FeatureMapParams]] = FeatureMapParams
    params: FeatureMapParams

    def __init__(self, params: FeatureMapParams, context: Context):
        """Raises ValueError where the classifier shows no feature maps."""
        if not context.classifier.has_maps:
            raise ValueError("the explained classifier shows no feature maps, which this method weights (a TorchScript "
                             "file lets nobody look at its layers): take the method out of `methods` in params.yaml, "
                             "or import the classifier with `source: python`")
        super().__init__(params, context)
        self.on_image = OnImage(context.classifier)

    @abstractmethod
    def coarse_maps(self, images: Tensor) -> list[Tensor]:
        """Unscaled maps of images (B,C,H,W) in [-1,1], one (B,h,w) for each of the strides."""

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        return geometric_mean([self.on_image(maps, images) for maps in self.coarse_maps(images)])

    def choose(self, features: list[Tensor], images: Tensor) -> list[Tensor]:
        """Those of the feature maps (B,C,h,w) of all sizes that `strides` names.

        Raises ValueError where the classifier has none of a stride.
        """
        if self.params.strides == "last":
            return features[-1:]
        found = by_stride(features, self.context.classifier.input_height(images))
        if missing := [stride for stride in self.params.strides if stride not in found]:
            key = f"methods.{type(self).__module__.rpartition('.')[2]}.strides"
            raise ValueError(f"{key} asks for feature maps of stride {', '.join(map(str, missing))}, but the "
                             f"classifier has maps of the strides {', '.join(map(str, found))} alone: choose of these "
                             f"in params.yaml, or `last`")
        return [found[stride] for stride in self.params.strides]

    def features_and_gradients(self, images: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each of the strides the feature maps A (B,C,h,w) and d logit / d A (B,C,h,w)."""
        with torch.enable_grad():
            view = self.context.classifier.view(images.detach().requires_grad_())
            chosen = self.choose(view.maps, images)
            # Images don't mix, so one sum serves them all.
            gradients = torch.autograd.grad(view.logits.sum(), chosen)
        return [(maps.detach(), gradient) for maps, gradient in zip(chosen, gradients, strict=True)]


def geometric_mean(maps: list[Tensor]) -> Tensor:
    """A single list entry as it is; of several maps (B,H,W) the geometric mean after min-max scaling each, (B,H,W)."""
    if len(maps) == 1:
        return maps[0]
    return torch.stack([min_max_scale(each) for each in maps]).prod(dim=0) ** (1 / len(maps))
