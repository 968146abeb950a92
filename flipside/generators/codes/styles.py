"""Styles of a style generator, and its images before a layer: what is passed to its synthesis and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Styles:
    """Scales of B images."""

    space: list[Tensor]  # (B,C) for each layer: one for each map that enters it
    images: list[Tensor]  # (B,C) for each size: of the maps that become the image

    def map(self, function: Callable[[Tensor], Tensor]) -> Styles:
        return Styles([function(each) for each in self.space], [function(each) for each in self.images])

    @classmethod
    def joined(cls, parts: list[Styles]) -> Styles:
        """Of all the parts' images, one after the other."""
        return cls(*([torch.cat(each) for each in zip(*lists, strict=True)]
                     for lists in ([part.space for part in parts], [part.images for part in parts])))

    def rows(self, chosen: Tensor) -> Styles:
        """Of some of the images, by positions or as a mask (B,)."""
        return self.map(lambda each: each[chosen])

    def expanded(self, count: int) -> Styles:
        """The same scales for `count` images, of one image's."""
        return self.map(lambda each: each.expand(count, -1))

    def with_layer(self, layer: int, values: Tensor) -> Styles:
        """With other scales (B,C) of one layer."""
        return replace(self, space=[*self.space[:layer], values, *self.space[layer + 1 :]])


@dataclass(frozen=True)
class State:
    """B images before a layer."""

    maps: Tensor  # (B,C,h,w)
    image: Tensor | None  # (B,image channels,h,w), what the sizes so far have made of it

    def expanded(self, count: int) -> State:
        """The same for `count` images, of one image's."""
        image = None if self.image is None else self.image.expand(count, -1, -1, -1)
        return State(self.maps.expand(count, -1, -1, -1), image)
