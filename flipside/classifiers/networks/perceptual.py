"""What the losses of an image compare: a classifier's maps at several depths, its features, or official LPIPS."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import Classifier
from flipside.classifiers.networks.view import View


def map_distance(maps: list[Tensor], others: list[Tensor]) -> Tensor:
    """Distance (B,) in [0,4] between two images' maps, a list of (B,C,h,w) each.

    As LPIPS (Zhang et al., 2018, equation 1) but without its trained weights and in the mean over the depths: the
    squared difference of the maps, at each position scaled to unit length over the channels, averaged over positions.
    """
    depths = [(F.normalize(first, dim=1) - F.normalize(second, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
              for first, second in zip(maps, others, strict=True)]  # (B,C,h,w) -> (B,)
    return torch.stack(depths).mean(dim=0)


class Lpips(Protocol):
    """What an `Observer` uses of the package lpips' network."""

    scaling_layer: nn.Module
    net: nn.Module
    lins: Iterable[nn.Module]


class Observer:
    """One pass of a frozen classifier, and of LPIPS' network where that is given, over images (B,C,H,W) in [-1,1].

    Without LPIPS the perceptual distance is that of the classifier's own maps, and `name` says so: `perceptual_clf`.
    Of a classifier that shows no maps it is the squared difference of the pixels at three sizes: `pixels`.
    """

    def __init__(self, classifier: Classifier, lpips: Lpips | None):
        self.classifier, self.lpips = classifier, lpips
        own = "perceptual_clf" if classifier.has_maps else "pixels"
        self.name = own if lpips is None else "lpips"

    def __call__(self, images: Tensor) -> View:
        view = self.classifier.view(images)
        if self.lpips is not None:
            rgb = as_rgb(images)  # (B*P,3,H,W)
            maps = [stack_parts(each, len(images)) for each in self.lpips.net.forward(self.lpips.scaling_layer(rgb))]
            return replace(view, maps=maps)
        if self.name == "pixels":
            return replace(view, maps=[images, F.avg_pool2d(images, 2), F.avg_pool2d(images, 4)])
        return view

    def perceptual(self, one: View, other: View) -> Tensor:
        """LPIPS (Zhang et al., 2018), the distance of the classifier's maps, or that of the pixels, (B,)."""
        if self.name == "pixels":
            sizes = [(first - second).square().mean(dim=(1, 2, 3))
                     for first, second in zip(one.maps, other.maps, strict=True)]  # (B,C,h,w) -> (B,)
            return torch.stack(sizes).mean(dim=0)
        if self.lpips is None:
            return map_distance(one.maps, other.maps)
        depths = [layer((unit_length(first) - unit_length(second)).square()).mean(dim=(1, 2, 3))  # (B,1,h,w) -> (B,)
                  for layer, first, second in zip(self.lpips.lins, one.maps, other.maps, strict=True)]
        return functools.reduce(operator.add, depths)

    def decision(self, one: View, other: View) -> Tensor:
        """Mean squared difference (B,) of the classifier's features (TACE, equations 2 and 3, third term)."""
        return (one.features - other.features).square().mean(dim=1)


def as_rgb(images: Tensor) -> Tensor:
    """Images (B,C,H,W) for a network that was trained on photographs: (B*P,3,H,W), those of an image in a row.

    Three channels go in as they are (P = 1), a single one as grey in all three (P = 1), any other number one by one as
    grey (P = C), and what the network says of them is averaged.
    """
    if images.shape[1] == 3:
        return images
    return images.flatten(0, 1).unsqueeze(1).expand(-1, 3, -1, -1)


def stack_parts(maps: Tensor, count: int) -> Tensor:
    """Maps (B*P,F,h,w) of the result of `as_rgb` for `count` = B images -> (B,F,P*h,w), an image's below each other: a
    mean over positions is then one over its channels too."""
    if len(maps) == count:
        return maps
    return maps.unflatten(0, (count, -1)).transpose(1, 2).flatten(2, 3)  # (B,P,F,h,w) -> (B,F,P*h,w)


def unit_length(maps: Tensor, eps: float = 1e-10) -> Tensor:
    """Maps (B,C,h,w) at unit length over the channels, as the package lpips has it."""
    return maps / (maps.square().sum(dim=1, keepdim=True).sqrt() + eps)
