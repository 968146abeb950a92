"""VA-GAN (Baumgartner et al. 2018, arXiv:1711.08998): the change that makes an image pass for healthy is the map."""

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
    needs: Literal["models/generators/va_gan"]
    """Folder of the trained generator."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.context = context
        self.generator = load_generator(params.needs, context.runtime)

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """y of images (B,1,H,W) in [-1,1], and |y - x| / 2."""
        with self.context.runtime.autocast():
            counterfactual = self.generator(images).float().clamp(-1, 1)
        return ExplanationBatch.from_counterfactual(images, counterfactual)
