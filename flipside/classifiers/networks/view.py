"""What a classifier makes of images on the way to its logits: feature maps at several depths, penultimate features."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class View:
    """A classifier's look at images; for fixed images it is computed once."""

    maps: list[Tensor]  # (B,C,h,w) each, of falling sizes; [] of a network that shows none
    features: Tensor  # (B,F) the penultimate features
    logits: Tensor  # (B,)

    def rows(self, chosen: Tensor) -> View:
        """The view of some of the images, by positions or as a mask (B,)."""
        return View([each[chosen] for each in self.maps], self.features[chosen], self.logits[chosen])


def maps_by_size(trunk: nn.Module, images: Tensor) -> list[Tensor]:
    """Maps of images (B,C,H,W) at several depths: the last (B,C,h,w) of each size; the trunk's output ends the list."""
    maps: list[Tensor] = []
    x = images
    for layer in _layers(trunk):
        x = layer(x)
        if maps and maps[-1].shape[-2:] == x.shape[-2:]:
            maps[-1] = x
        else:
            maps.append(x)
    return maps


def _layers(module: nn.Module) -> list[nn.Module]:
    """A trunk's layers in the order in which they are called, nested `Sequential`s taken apart."""
    if type(module).forward is nn.Sequential.forward:
        return [layer for child in module.children() for layer in _layers(child)]
    return [module]


def by_stride(maps: list[Tensor], height: int) -> dict[int, Tensor]:
    """{stride: maps} of feature maps (B,C,h,w) of falling sizes, the strides relative to an image of so many rows.

    Counted from size to size, each ratio rounded to a whole number: a side of 9 that becomes 5 or 4 is halved.
    """
    found: dict[int, Tensor] = {}
    stride = 1
    for each in maps:
        stride *= round(height / each.shape[-2])
        height = each.shape[-2]
        found[stride] = each
    return found
