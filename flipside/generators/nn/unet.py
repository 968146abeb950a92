"""A U-Net with group norm (Ronneberger et al. 2015, Wu & He 2018), for masks: `flip_mask` and the segmenters."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 8  # of a group norm, or the greatest number below it that divides the channels


class UNet(nn.Module):
    """Images (B,inputs,H,W) -> maps (B,outputs,H,W), unbounded.

    `channels`: of each level; the first keeps the images' size, each further one has half of the one before.
    """

    def __init__(self, inputs: int, channels: list[int], outputs: int):
        super().__init__()
        self.down = nn.ModuleList(double_convolution(i, o) for i, o in pairwise([inputs, *channels]))
        self.up = nn.ModuleList(double_convolution(low + high, high) for high, low in pairwise(channels))
        self.head = nn.Conv2d(channels[0], outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        factor = 2 ** len(self.up)
        if images.shape[2] % factor or images.shape[3] % factor:
            raise ValueError(f"images of {tuple(images.shape[2:])} can't be halved {len(self.up)} times: make "
                             f"image_size a multiple of {factor} or shorten the network's `channels`")
        maps, x = [], images
        for number, block in enumerate(self.down):
            x = block(F.avg_pool2d(x, 2) if number else x)
            maps.append(x)
        for block, skipped in zip(reversed(self.up), maps[-2::-1], strict=True):
            x = block(torch.cat([F.interpolate(x, scale_factor=2, mode="nearest"), skipped], dim=1))
        return self.head(x)


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Twice conv3, group norm, SiLU: (B,inputs,h,w) -> (B,outputs,h,w)."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                   nn.GroupNorm(math.gcd(GROUPS, outputs), outputs), nn.SiLU()]
    return nn.Sequential(*layers)
