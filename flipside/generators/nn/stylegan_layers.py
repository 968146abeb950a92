"""Layers of StyleGAN2 (Karras et al. 2020) in plain PyTorch, without custom operators: what BlobGAN is built of."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from flipside.core import ranks

SQRT2 = math.sqrt(2)


def activated(x: Tensor) -> Tensor:
    """Leaky ReLU 0.2 with gain sqrt(2)."""
    return F.leaky_relu(x, 0.2) * SQRT2


def pixel_norm(x: Tensor, dim: int, eps: float = 1e-5) -> Tensor:
    """Root mean square over `dim` brought to 1."""
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x * torch.rsqrt(length.square() / x.shape[dim] + eps)


def draw_noise(x: Tensor, source: Generator) -> Tensor:
    """A noise map (B,1,h,w) for each of the maps (B,C,h,w), drawn for the whole batch, whatever rank they are on."""
    return ranks.share(torch.randn(ranks.count() * len(x), 1, *x.shape[2:], generator=source, device=x.device))


class EqualLinear(nn.Module):
    """Equalised linear layer: weight ~ N(0,1)/lr_mul, scaled by lr_mul/sqrt(fan-in) when it is used."""

    def __init__(self, inputs: int, outputs: int, lr_mul: float = 1.0, bias: float = 0.0, activate: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_mul)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_mul))
        self.scale, self.lr_mul, self.activate = lr_mul / math.sqrt(inputs), lr_mul, activate

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)
        return activated(y) if self.activate else y


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """Maps (B,C,h,w) filtered by [1,3,3,1]/8 along both axes, zero-padded: (B,C,h+2p-3,w+2p-3). `gain` scales all."""
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device, dtype=x.dtype) / 8
    channels = x.shape[1]
    rows = (line * gain).view(1, 1, 4, 1).expand(channels, 1, 4, 1)
    columns = line.view(1, 1, 1, 4).expand(channels, 1, 1, 4)
    x = F.conv2d(x, rows, padding=(padding, 0), groups=channels)
    return F.conv2d(x, columns, padding=(0, padding), groups=channels)


class EqualConv(nn.Module):
    """Equalised convolution, activated unless `plain`; `down`: blurred and taken at every other position."""

    def __init__(self, inputs: int, outputs: int, kernel: int, down: bool = False, plain: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = None if plain else nn.Parameter(torch.zeros(outputs))
        self.scale, self.kernel, self.down = 1 / math.sqrt(inputs * kernel**2), kernel, down

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if self.down:
            x = blur(x, padding=(self.kernel + 1) // 2)  # (B,C,h,w) -> (B,C,h+1,w+1) for kernel 3, h-1 for kernel 1
            x = F.conv2d(x, weight, self.bias, stride=2)
        else:
            x = F.conv2d(x, weight, self.bias, padding=self.kernel // 2)
        return x if self.bias is None else activated(x)


class DownBlock(nn.Module):
    """Residual block of StyleGAN2's discriminator, half the size."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv1, self.conv2 = EqualConv(inputs, inputs, 3), EqualConv(inputs, outputs, 3, down=True)
        self.skip = EqualConv(inputs, outputs, 1, down=True, plain=True)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / SQRT2


class ResidualTrunk(nn.Module):
    """StyleGAN2's residual discriminator: images (B,C,side,side) -> (B,outputs).

    `channels`: of the image's size and of each halving. With `minibatch_std` (the discriminator has it, the encoder
    not) the deviation over groups of up to four images is one more map.
    """

    def __init__(self, side: int, channels: list[int], outputs: int, minibatch_std: bool, image_channels: int = 1):
        super().__init__()
        self.minibatch_std = minibatch_std
        last = side // 2 ** (len(channels) - 1)
        if last < 1 or last * 2 ** (len(channels) - 1) != side:
            raise ValueError(f"generators: `discriminator_channels` halve {len(channels) - 1} times, which images of "
                             f"{side} x {side} pixels don't allow: shorten the list")
        self.stem = EqualConv(image_channels, channels[0], 1)
        self.blocks = nn.Sequential(*(DownBlock(i, o) for i, o in zip(channels, channels[1:], strict=False)))
        self.conv = EqualConv(channels[-1] + minibatch_std, channels[-1], 3)
        self.hidden = EqualLinear(channels[-1] * last**2, channels[-1], activate=True)
        self.out = EqualLinear(channels[-1], outputs)

    def forward(self, images: Tensor) -> Tensor:
        x = self.blocks(self.stem(images))  # (B,C,last,last)
        if self.minibatch_std:
            x = torch.cat([x, deviation_map(x)], dim=1)
        return self.out(self.hidden(self.conv(x).flatten(1)))


def deviation_map(x: Tensor, group: int = 4) -> Tensor:
    """Mean standard deviation of maps (B,C,h,w) within groups of up to `group` images of the whole batch, whatever
    ranks they are on: (B,1,h,w)."""
    x = ranks.gathered(x)
    count, _, height, width = x.shape
    group = max(size for size in range(1, group + 1) if count % size == 0)
    grouped = x.float().view(group, count // group, *x.shape[1:])
    deviation = (grouped.var(dim=0, unbiased=False) + 1e-8).sqrt().mean(dim=(1, 2, 3))  # (B/group,)
    deviation = ranks.share(deviation.repeat(group).to(x.dtype))  # (B,)
    return deviation.view(-1, 1, 1, 1).expand(-1, 1, height, width)
