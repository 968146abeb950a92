"""The methods that give a map and no counterfactual, and what several of them compute."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.core.runtime import Runtime
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.method import Method
from flipside.methods.base.parameters import MethodParams

Baseline = Literal["mid_grey", "air"]
BASELINES: dict[Baseline, float] = {"mid_grey": 0.0, "air": -1.0}  # value of a hidden pixel, in the range [-1,1]


class MapParams(MethodParams):
    """Parameters of a method that reads nothing but the explained classifier."""

    needs: Literal["models/classifiers/classifier"]
    """Folder of the explained classifier."""


class MapMethod(Method):
    """Base of these methods: they define `maps`, scaling is done here."""

    Params: ClassVar[type[MapParams]] = MapParams
    explains_any_classifier = True

    @abstractmethod
    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        """Unscaled maps (B,H,W) of images (B,C,H,W) in [-1,1] at the store's positions `rows` (B,)."""

    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Maps of images (B,C,H,W), each min-max scaled to [0,1] as COIN (Shvetsov et al. 2024) does."""
        return ExplanationBatch(min_max_scale(self.maps(images, rows)))


def min_max_scale(maps: Tensor) -> Tensor:
    """Each of the maps (...,H,W) scaled to [0,1]; a constant map says nothing and becomes all zeros."""
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    span = high - low
    # Only an exact zero is replaced, so that NaN stays NaN and is refused when it is written.
    return ((maps - low) / span.masked_fill(span == 0, 1.0)).clamp(0, 1)


def upsample(maps: Tensor, images: Tensor) -> Tensor:
    """Maps (B,h,w) brought bilinearly to the size of images (B,C,H,W): (B,H,W)."""
    size = images.shape[-2:]
    return F.interpolate(maps.unsqueeze(1), size=size, mode="bilinear", align_corners=False).squeeze(1)


@torch.no_grad()
def masked_probabilities(classifier: Classifier, runtime: Runtime, image: Tensor, masks: Tensor,
                         baseline: float) -> Tensor:
    """Probability of abnormal (M,) of one image (C,H,W) seen through masks (M,H,W) in [0,1], in one forward pass.

    A mask of 1 keeps a pixel, 0 turns it into `baseline`, in all channels: with baseline 0 the mask multiplies
    the image.
    """
    masked = (image - baseline) * masks.unsqueeze(1)  # (C,H,W) * (M,1,H,W) -> (M,C,H,W)
    if baseline:
        masked += baseline
    with runtime.autocast():
        logits = classifier(masked)  # (M,C,H,W) -> (M,)
    return torch.sigmoid(logits.float())
