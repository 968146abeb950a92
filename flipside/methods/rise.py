"""RISE (Petsiuk, Das, Saenko 2018): the mean of random masks, each weighted by the probability for what it shows.

Eq. 6: S = 1 / (N E[M]) * sum_i f(I * M_i) M_i. One set of masks serves all images, as in the published code. N E[M]
stands for how often a pixel was shown, which `normalisation: coverage` counts instead: sum_i M_i at that pixel. Then
what f says on average no longer matters: f - c gives S - c, the same map once it is min-max scaled.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor

from flipside.core.runtime import generator_for
from flipside.methods.base.folding import folded
from flipside.methods.base.maps import BASELINES, Baseline, MapMethod, MapParams, masked_probabilities
from flipside.methods.base.method import Context


class RiseParams(MapParams):
    """Section `methods.rise`."""

    masks: PositiveInt
    """N, the number of random masks; COIN: 6000."""
    grid: PositiveInt
    """Cells per side of a coarse mask, before it is upsampled."""
    keep: float = Field(gt=0, le=1)
    """p, the probability that a cell of a mask is shown."""
    normalisation: Literal["coverage", "expectation"]
    """Divide at each pixel by how much of it the masks have shown, or everywhere by N p, as published."""
    batch_size: PositiveInt
    """Masked images per forward pass of the classifier."""
    baseline: Baseline
    """What a hidden pixel becomes: mid_grey (0) as published, or air (-1)."""


class Rise(MapMethod):
    """Random masks, averaged."""

    Params = RiseParams
    params: RiseParams

    def __init__(self, params: RiseParams, context: Context):
        super().__init__(params, context)
        self.classifier = folded(context.classifier)
        generator = generator_for(context.seed)
        draws = torch.rand(params.masks, params.grid, params.grid, generator=generator)
        self.cells = (draws < params.keep).float().to(context.runtime.device)  # (N,g,g)
        self.shifts = torch.rand(params.masks, 2, generator=generator).to(context.runtime.device)  # (N,2) in [0,1)

    def masks(self, part: slice, height: int, width: int) -> Tensor:
        """Some of the masks (M,H,W) in [0,1]: cells upsampled bilinearly to one cell more than the image, then cropped
        at a random place (section 3.2)."""
        cell_height, cell_width = math.ceil(height / self.params.grid), math.ceil(width / self.params.grid)
        size = ((self.params.grid + 1) * cell_height, (self.params.grid + 1) * cell_width)
        large = F.interpolate(self.cells[part].unsqueeze(1), size=size, mode="bilinear", align_corners=False)
        shifts, device = self.shifts[part], large.device
        rows = (shifts[:, :1] * cell_height).long() + torch.arange(height, device=device)  # (M,H)
        columns = (shifts[:, 1:] * cell_width).long() + torch.arange(width, device=device)  # (M,W)
        which = torch.arange(len(large), device=device)[:, None, None]
        return large[which, 0, rows[:, :, None], columns[:, None, :]]  # (M,1,H+,W+) -> (M,H,W)

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        baseline = BASELINES[self.params.baseline]
        saliency = torch.zeros_like(images[:, 0])  # (B,H,W)
        coverage = torch.zeros_like(saliency[0])  # (H,W)
        # Masks outside, images inside: each mask is made once for all images of the batch, and every forward pass is
        # full of masks of one image, so that an image's map doesn't depend on its neighbours in the batch.
        for start in range(0, self.params.masks, self.params.batch_size):
            masks = self.masks(slice(start, start + self.params.batch_size), *images.shape[-2:])  # (M,H,W)
            coverage += masks.sum(dim=0)
            for image, total in zip(images, saliency, strict=True):
                weights = masked_probabilities(self.classifier, self.context.runtime, image, masks, baseline)  # (M,)
                total += (weights @ masks.flatten(1)).view_as(total)  # (M,) @ (M,H*W) -> (H,W)
        if self.params.normalisation == "expectation":
            return saliency / (self.params.masks * self.params.keep)
        return saliency / coverage.masked_fill(coverage == 0, 1.0)  # a pixel that was never shown keeps its 0
