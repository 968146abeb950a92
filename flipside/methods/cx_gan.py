"""CX-GAN (Murtaza 2026, arXiv:2605.05283): the map M(x) = -F(G(x)) and the counterfactual instance G(x)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.core.params import Params
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import Context, ExplanationBatch

# Trained on labels alone: the maps say what sets the classes apart, and nothing of any classifier. The randomisation
# check finds that out.
TRAINED_WITHOUT_CLASSIFIER = True


class MethodParams(Params):
    needs: Literal["models/generators/cx_gan"]
    """Folder of the trained generators."""
    attribution: Literal["map", "instance"]
    """Map: M(x), as published. The integrated model's F sees nothing but G(x): where that is a healthy image without a
    trace of what was there, F can't know where to draw. instance: the change from x to G(x)."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.params, self.context = params, context
        self.generator = load_generator(params.needs, context.runtime)

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Of images (B,1,H,W) in [-1,1]: attribution |M| / 2, in the unit of the other methods' changes, or
        |x - G(x)| / 2; the instance G(x), and how far from x the way back from there ends."""
        with self.context.runtime.autocast():
            counterfactual = self.generator.healthy(images).float().clamp(-1, 1)
            change = (counterfactual - images if self.params.attribution == "instance"
                      else self.generator.change(images, counterfactual).float())
            back = self.generator.abnormal(counterfactual).float()
        cycle_l1 = (back - images).abs().mean(dim=(1, 2, 3)) / 2  # (B,)
        return ExplanationBatch(change.abs().squeeze(1) / 2, counterfactual, cycle_l1=cycle_l1)
