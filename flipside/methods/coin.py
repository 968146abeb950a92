"""COIN (Shvetsov et al. 2024, arXiv:2404.12832): one pass of the inpainting generator; the change is the map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.core.params import Params
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import Context, ExplanationBatch


class MethodParams(Params):
    needs: Literal["models/generators/coin"]
    """Folder of the trained generator."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.context = context
        self.generator = load_generator(params.needs, context.runtime)

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals E(x) of images (B,1,H,W) in [-1,1]."""
        with self.context.runtime.autocast():
            counterfactual = self.generator(images).float().clamp(-1, 1)
        return ExplanationBatch.from_counterfactual(images, counterfactual)
