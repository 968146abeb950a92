"""COIN-Aligned: one pass of the aligned generator; the change is the map."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.core.params import Params
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import Context, ExplanationBatch


class MethodParams(Params):
    needs: Literal["models/generators/coin_aligned"]
    """Folder of the trained generator."""
    compare: Literal["input_range", "aligned"]
    """The map: |x - x_cf| / 2 in the scan's range, or after tanh as in the thesis, |tanh(x) - tanh(x + G)| / 2."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.params, self.context = params, context
        self.generator = load_generator(params.needs, context.runtime)

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,1,H,W) in [-1,1]; the classifier's features of them steer the generator."""
        classifier, features = self.context.classifier, None
        if self.generator.features:  # in full precision, as in training
            features = classifier.pooled(classifier.features(images))
        with self.context.runtime.autocast():
            total = self.generator.total(images, features).float()
        counterfactual = self.generator.in_input_range(total).clamp(-1, 1)  # all else compares it with the scan
        if self.params.compare == "input_range":
            return ExplanationBatch.from_counterfactual(images, counterfactual)
        difference = self.generator.align(images) - self.generator.aligned(total)
        return ExplanationBatch(difference.abs().squeeze(1) / 2, counterfactual)  # (B,1,H,W) -> (B,H,W)
