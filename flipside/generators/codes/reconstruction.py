"""What compares images and layouts with their reconstructions (TACE, equations 1 and 2)."""

from __future__ import annotations

import itertools
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from flipside.classifiers.networks.backbones import Classifier
from flipside.classifiers.networks.perceptual import Observer
from flipside.classifiers.networks.pretrained import find_lpips
from flipside.classifiers.networks.view import View
from flipside.core.params import Params
from flipside.generators.codes.blobs import Layout

PixelLoss = Literal["l1", "l2"]


class ReconstructionWeights(Params):
    """Weights of one half of TACE's equation 2; the published values are OCTET's (TACE states none)."""

    perceptual: float = Field(ge=0)
    """Weight of the perceptual distance: LPIPS, or that of the classifier's maps where LPIPS' weights are absent."""
    pixel: float = Field(ge=0)
    """Weight of the difference in pixels."""
    decision: float = Field(ge=0)
    """Weight of the squared difference in the classifier's features."""


def observer_of(classifier: Classifier) -> Observer:
    """What compares images for the losses: the classifier, with LPIPS where its weights are in torch hub's cache."""
    tensors = itertools.chain(classifier.parameters(), classifier.buffers())
    device = next((tensor.device for tensor in tensors), torch.device("cpu"))
    return Observer(classifier, find_lpips(device))


def reconstruction_terms(weights: ReconstructionWeights, pixel_loss: PixelLoss, observer: Observer, images: Tensor,
                         others: Tensor, view: View) -> dict[str, Tensor]:
    """Weighted terms of equation 2 between images, whose view is given, and reconstructions, both (B,C,H,W)."""
    seen, difference = observer(others), others - images
    pixel = difference.abs().mean() if pixel_loss == "l1" else difference.square().mean()
    return {
        "perceptual": weights.perceptual * observer.perceptual(seen, view).mean(),
        "pixel": weights.pixel * pixel,
        "decision": weights.decision * observer.decision(seen, view).mean(),
    }


def layout_distance(one: Layout, other: Layout) -> Tensor:
    """Mean over OCTET's six groups (x, y, size, shape, feat, style) of their mean squared difference, (B,)."""
    errors = {name: (value - getattr(other, name)).square() for name, value in one.groups().items() if name != "noise"}
    x, y = errors.pop("xy").unbind(dim=-1)  # (B,K) each
    groups = [x, y, *errors.values()]
    return torch.stack([group.flatten(1).mean(dim=1) for group in groups]).mean(dim=0)
