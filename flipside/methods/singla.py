"""Singla* (Singla et al. 2021 as in COIN, appendix A): the image carried to either side of the decision.

Toward healthy it is the counterfactual, comparable with the other methods' ones; toward abnormal it is an extra.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.core.checkpoint import read_description
from flipside.core.params import Params
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import Context, ExplanationBatch


class MethodParams(Params):
    needs: Literal["models/generators/singla"]
    """Folder of the trained generator."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.context = context
        self.generator = load_generator(params.needs, context.runtime)
        self.bins = read_description(params.needs)["architecture"]["bins"]

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """E(x, first bin) and E(x, last bin) of images (B,1,H,W) in [-1,1], whatever the classifier says of them."""
        last = torch.full((len(images),), self.bins - 1, device=images.device)
        with self.context.runtime.autocast():
            healthy = self.generator(images).float().clamp(-1, 1)
            abnormal = self.generator(images, last).float().clamp(-1, 1)
        return ExplanationBatch.from_counterfactual(images, healthy, abnormal=abnormal)
