"""Where the cells of feature maps lie in an image, and maps drawn there.

Convolutions with a stride seldom keep their cells in the middle of what these stand for: one of 3 x 3 with stride 2 and
padding 1 looks at the pixels 0, 2, 4, half a pixel too early, and behind the five such layers of a ResNet a cell of 32
pixels lies 15.5 pixels before the place at which plain bilinear enlargement draws it. Centres of receptive fields are
followed from layer to layer as in Araujo et al. 2019, "Computing Receptive Fields of Convolutional Neural Networks".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flipside.classifiers.networks.backbones import Classifier
from flipside.methods.base.maps import upsample

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
CLOSE = 1e-6  # pixels


@dataclass(frozen=True)
class Axis:
    """Centres of the cells along one axis of an image, in pixels: `first` + `step` * number of the cell."""

    first: float
    step: float

    def behind(self, stride: float, start: float) -> Axis:
        """Of the cells that a layer makes of these, whose cell 0 looks at their number `start`."""
        return Axis(self.first + self.step * start, self.step * stride)

    @classmethod
    def filling(cls, cells: int, pixels: int) -> Axis:
        """Of cells that share all pixels evenly, as bilinear enlargement takes them."""
        return cls((pixels / cells - 1) / 2, pixels / cells)

    def weights(self, cells: int, pixels: int, like: Tensor) -> Tensor:
        """(pixels, cells): the bilinear share of each cell in each pixel; beyond the outer cells these alone."""
        at = ((torch.arange(pixels, dtype=torch.float64) - self.first) / self.step).clamp(0, cells - 1)
        return (1 - (at[:, None] - torch.arange(cells)).abs()).clamp(min=0).to(like)


@dataclass(frozen=True)
class _Layer:
    """A convolution's or a pool's numbers of cells before and after it, and how it goes over them, along one axis."""

    before: int
    after: int
    kernel: int  # with dilation
    stride: int
    padding: int

    @property
    def start(self) -> float:
        """Which of the cells before it its cell 0 looks at, in the middle."""
        padding = self.padding
        if (self.before + 2 * padding - self.kernel) // self.stride + 1 != self.after:  # pads inside its own forward
            padding = max((self.after - 1) * self.stride + self.kernel - self.before, 0) // 2
        return (self.kernel - 1) / 2 - padding


class OnImage:
    """Draws maps of a classifier at their places in its images."""

    def __init__(self, classifier: Classifier):
        self.classifier = classifier
        self.known: dict[torch.Size, list[list[_Layer]]] = {}  # by the image's size, for rows and columns

    def __call__(self, maps: Tensor, images: Tensor) -> Tensor:
        """Maps (B,h,w) of images (B,C,H,W) brought bilinearly to (B,H,W)."""
        size = images.shape[-2:]
        if size not in self.known:
            self.known[size] = find_layers(self.classifier, images[:1])
        axes = [place_cells(layers, cells, pixels)
                for layers, cells, pixels in zip(self.known[size], maps.shape[-2:], size, strict=True)]
        usual = [Axis.filling(cells, pixels) for cells, pixels in zip(maps.shape[-2:], size, strict=True)]
        if all(abs(one.first - other.first) < CLOSE and abs(one.step - other.step) < CLOSE
               for one, other in zip(axes, usual, strict=True)):
            return upsample(maps, images)
        rows, columns = (axis.weights(cells, pixels, maps)
                         for axis, cells, pixels in zip(axes, maps.shape[-2:], size, strict=True))
        return rows @ maps @ columns.T  # (H,h) (B,h,w) (w,W) -> (B,H,W)


@torch.no_grad()
def find_layers(classifier: Classifier, image: Tensor) -> list[list[_Layer]]:
    """For rows and for columns the layers that change the size of maps, in the order in which they are called, on an
    image (1,C,H,W)."""
    found: list[list[_Layer]] = [[], []]

    def keep(module: Any, inputs: Any, output: Any) -> None:
        if not inputs or not isinstance(output, Tensor):  # called by keyword, or with indices
            return
        for axis in (0, 1):
            kernel, stride, dilation = (_of_axis(getattr(module, name, 1), axis)
                                        for name in ("kernel_size", "stride", "dilation"))
            before, after = inputs[0].shape[axis - 2], output.shape[axis - 2]
            padding = 0 if isinstance(module.padding, str) else _of_axis(module.padding, axis)
            if after != before:
                found[axis].append(_Layer(before, after, (kernel - 1) * dilation + 1, stride, padding))

    handles = [module.register_forward_hook(keep) for module in classifier.modules()
               if isinstance(module, (nn.Conv2d, *POOLS))]
    try:
        classifier(image)
    finally:
        for handle in handles:
            handle.remove()
    return found


def place_cells(layers: list[_Layer], cells: int, pixels: int) -> Axis:
    """Where so many cells lie along an axis of so many pixels.

    Of several layers that go on from the same maps the one that reduces least counts, of equal ones, as a block and its
    shortcut have them, the first. What changes the size and is no convolution or pool with a module of its own, such as
    the resize before the network, is taken to keep cells in the middle of what they stand for.
    """
    there = layers[0].before if layers else pixels  # what the network itself gets
    axis = Axis.filling(there, pixels)
    while there > cells:
        if onward := [layer for layer in layers if layer.before == there and cells <= layer.after < there]:
            layer = max(onward, key=lambda each: each.after)
            axis, there = axis.behind(layer.stride, layer.start), layer.after
        else:
            after = max((layer.before for layer in layers if cells <= layer.before < there), default=cells)
            axis, there = _evenly(axis, there, after), after
    return axis if there == cells else _evenly(axis, there, cells)


def _evenly(axis: Axis, before: int, after: int) -> Axis:
    between = Axis.filling(after, before)
    return axis.behind(between.step, between.first)


def _of_axis(value: int | tuple[int, ...], axis: int) -> int:
    return value if isinstance(value, int) else value[axis]
