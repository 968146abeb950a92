"""The methods that read a trained generator, and those of them that are one forward pass of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flipside.generators.base.loading import load_generator
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.method import Context, Method
from flipside.methods.base.parameters import MethodParams


class GeneratorMethod(Method):
    """Base of the methods that read a trained generator, from the folder `needs`."""

    generator: Any  # frozen; a subclass that calls more than its forward pass annotates what it calls

    def __init__(self, params: MethodParams, context: Context):
        super().__init__(params, context)
        self.generator = load_generator(params.needs, context.runtime)


class GeneratorPass(GeneratorMethod):
    """Base of the methods that are one pass of a generator: the counterfactual is what it makes of the image, the map
    is the change. They override `explain` where they differ."""

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Explain images (B,C,H,W) in [-1,1]; neither their rows nor their organs are needed."""
        return self.explain(images)

    def explain(self, images: Tensor) -> ExplanationBatch:
        """The answer for images (B,C,H,W) in [-1,1], whatever the classifier calls them."""
        return ExplanationBatch.from_counterfactual(images, self.generate(images))

    def generate(self, images: Tensor, *condition: Tensor) -> Tensor:
        """What the generator makes of images (B,C,H,W), under a condition (B,) where it takes one: (B,C,H,W) float32
        in [-1,1]."""
        with self.context.runtime.autocast():
            return self.generator(images, *condition).float().clamp(-1, 1)
