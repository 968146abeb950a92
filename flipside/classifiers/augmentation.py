"""Training augmentation: a list of named transforms, each on a whole batch with one draw per image.

Images are (B,C,H,W) in [-1,1]; what `affine` moves in from outside is air (-1). All channels of an image are changed
alike, with the same draw; only `noise` is another one in each of them. Randomness comes from the given generator.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor

from flipside.core.params import Params


def uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    """Random numbers (count,) in [low,high), on the CPU."""
    return torch.rand(count, generator=generator) * (high - low) + low


class Transform(Params, ABC):
    """A random transform of training images."""

    probability: float = Field(ge=0, le=1)
    """Probability with which an image is transformed, of each image on its own."""

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """Transform a random part of the batch; the input stays as it is."""
        chosen = torch.rand(len(images), generator=generator) < self.probability
        changed = self.apply(images, generator)  # every image's draw is made, so one image doesn't shift another's
        return torch.where(chosen.to(images.device)[:, None, None, None], changed, images)

    @abstractmethod
    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        """Every image transformed, with one draw each."""


class HorizontalFlip(Transform):
    """Left and right exchanged."""

    name: Literal["horizontal_flip"]

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        return images.flip(3)


class VerticalFlip(Transform):
    """Top and bottom exchanged."""

    name: Literal["vertical_flip"]

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        return images.flip(2)


class Crop(Transform):
    """A random part of an image that was mirrored at its edges, of the image's own size: moved by whole pixels."""

    name: Literal["crop"]
    margin: float = Field(ge=0, lt=1)
    """Largest move along each axis, as a fraction of the size; rounded down to whole pixels."""

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        count, (height, width) = len(images), images.shape[2:]
        high, wide = int(self.margin * height), int(self.margin * width)
        top, left = (torch.randint(2 * most + 1, (count, 1), generator=generator) for most in (high, wide))
        rows, columns = top + torch.arange(height), left + torch.arange(width)  # (B,H), (B,W)
        padded = F.pad(images, (wide, wide, high, high), mode="reflect")  # (B,C,H+2h,W+2w)
        image, channel = torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[:, None, None]
        return padded[image, channel, rows[:, None, :, None], columns[:, None, None, :]]


class Affine(Transform):
    """Shift, scale and rotation about the centre, bilinear."""

    name: Literal["affine"]
    shift: float
    """Largest shift, as a fraction of the size."""
    scale: float
    """Largest change of scale: it is drawn from 1 - scale .. 1 + scale."""
    rotate_degrees: float
    """Largest rotation in degrees, either way."""

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        count = len(images)
        angle = uniform(count, -self.rotate_degrees, self.rotate_degrees, generator) * math.pi / 180
        scale = uniform(count, 1 - self.scale, 1 + self.scale, generator)
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        shift = 2 * uniform(2 * count, -self.shift, self.shift, generator).view(2, count)  # grid units: size = 2
        matrix = torch.stack([cos, -sin, shift[0], sin, cos, shift[1]], dim=1).view(count, 2, 3)
        grid = F.affine_grid(matrix.to(images.device), list(images.shape), align_corners=False)  # (B,H,W,2)
        return F.grid_sample(images + 1, grid, align_corners=False) - 1  # zero padding of x + 1 is air


class Noise(Transform):
    """Gaussian noise with one standard deviation per image, drawn for each channel, clamped to [-1,1]."""

    name: Literal["noise"]
    deviation: float
    """Largest standard deviation of the noise, on the [-1,1] scale."""

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        deviation = uniform(len(images), 0, self.deviation, generator)[:, None, None, None]
        noise = torch.randn(images.shape, generator=generator) * deviation
        return (images + noise.to(images.device)).clamp(-1, 1)


class Blur(Transform):
    """Gaussian blur with one sigma per image."""

    name: Literal["blur"]
    sigma_px: float
    """Largest standard deviation of the blur in pixels."""

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        radius = max(1, math.ceil(2 * self.sigma_px))
        sigma = uniform(len(images), 0.1, self.sigma_px, generator)[:, None]
        offsets = torch.arange(-radius, radius + 1)[None]
        kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
        kernel = (kernel / kernel.sum(1, keepdim=True)).to(images)  # (B,K)
        stack = F.pad(images.transpose(0, 1), [radius] * 4, mode="replicate")  # (C,B,H+2r,W+2r)
        stack = F.conv2d(stack, kernel[:, None, :, None], groups=len(images))
        return F.conv2d(stack, kernel[:, None, None, :], groups=len(images)).transpose(0, 1)  # (B,C,H,W)


class Gamma(Transform):
    """Brightness in [0,1] raised to a random power per image."""

    name: Literal["gamma"]
    strength: float
    """Natural logarithm of the largest exponent; the smallest is its inverse."""

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        exponent = torch.exp(uniform(len(images), -self.strength, self.strength, generator))
        return 2 * ((images + 1) / 2).clamp(0, 1) ** exponent.to(images.device)[:, None, None, None] - 1


class Tanh(Transform):
    """x -> tanh(x), the range that a generator's closing tanh leaves (COIN-Aligned, section 3.3).

    Its code applies it to every training image (probability 1) and to no other. A classifier that also sees images as
    they are needs both: a probability below 1.
    """

    name: Literal["tanh"]

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        return torch.tanh(images)


class BlackHoles(Transform):
    """Discs that may overlap, each darkened by a random amount (COIN-Aligned, section 3.3).

    A classifier trained with them doesn't take a hole in place of the lesion for "healthy".
    """

    name: Literal["black_holes"]
    discs: tuple[int, int]
    """Least and largest number of discs in an image."""
    radius: tuple[float, float]
    """Least and largest radius as a fraction of the image's height; rounded down to whole pixels."""
    depth: float
    """Largest amount by which a disc is darkened, on the [-1,1] scale; overlapping discs add up."""
    margin: float = Field(ge=0, lt=0.5)
    """Least distance of a disc's centre from the image's edges, as a fraction of its size."""

    def apply(self, images: Tensor, generator: Generator) -> Tensor:
        count, (height, width) = len(images), images.shape[2:]
        discs = torch.randint(self.discs[0], self.discs[1] + 1, (count,), generator=generator)

        def drawn(low: float, high: float) -> Tensor:
            return uniform(count * self.discs[1], low, high, generator).view(-1, count, 1, 1).to(images.device)

        row = (drawn(self.margin, 1 - self.margin) * height).floor()  # (D,B,1,1), the largest number of discs each
        column = (drawn(self.margin, 1 - self.margin) * width).floor()
        radius = (drawn(*self.radius) * height).floor()
        amount = drawn(0, self.depth)
        rows, columns = (torch.arange(size, device=images.device) for size in (height, width))
        total = torch.zeros_like(images[:, 0])  # (B,H,W)
        for disc in range(self.discs[1]):
            inside = (rows[:, None] - row[disc]) ** 2 + (columns - column[disc]) ** 2 <= radius[disc] ** 2  # (B,H,W)
            inside &= (discs > disc).to(images.device)[:, None, None]
            total += amount[disc] * inside
        return (images - total.unsqueeze(1)).clamp(-1, 1)


AnyTransform = Annotated[
    HorizontalFlip | VerticalFlip | Crop | Affine | Noise | Blur | Gamma | Tanh | BlackHoles,
    Field(discriminator="name"),
]


def augment(images: Tensor, transforms: Sequence[Transform], generator: Generator) -> Tensor:
    """Apply the transforms one after the other; (B,C,H,W) in [-1,1] in and out."""
    for transform in transforms:
        images = transform(images, generator)
    return images
