"""Singla* (Singla et al. 2021 as in COIN, appendix A): the image carried to either side of the decision.

Toward healthy it is the counterfactual, comparable with those of the other methods; toward abnormal it is an extra.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.artifacts.explanations import ABNORMAL
from flipside.core.checkpoint import read_description
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.generator_pass import GeneratorPass
from flipside.methods.base.method import Context
from flipside.methods.base.parameters import MethodParams


class SinglaParams(MethodParams):
    """Section `methods.singla`."""

    needs: Literal["models/generators/singla"]
    """Folder of the trained generator."""


class Singla(GeneratorPass):
    """The image at either end of the decision."""

    Params = SinglaParams
    extras = (ABNORMAL,)

    def __init__(self, params: SinglaParams, context: Context):
        super().__init__(params, context)
        self.bins: int = read_description(params.needs)["architecture"]["bins"]

    def explain(self, images: Tensor) -> ExplanationBatch:
        """E(x, first bin) and E(x, last bin) of images (B,C,H,W) in [-1,1]."""
        last = torch.full((len(images),), self.bins - 1, device=images.device)
        healthy, abnormal = self.generate(images), self.generate(images, last)
        return ExplanationBatch.from_counterfactual(images, healthy, {ABNORMAL: abnormal})
