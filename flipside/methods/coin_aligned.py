"""COIN-Aligned: one pass of the aligned generator; the change is the map."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from flipside.methods.base.batch import ExplanationBatch, map_of_change
from flipside.methods.base.generator_pass import GeneratorPass
from flipside.methods.base.parameters import MethodParams


class CoinAlignedParams(MethodParams):
    """Section `methods.coin_aligned`."""

    needs: Literal["models/generators/coin_aligned"]
    """Folder of the trained generator."""
    compare: Literal["input_range", "aligned"]
    """The map: |x - x_cf| / 2 in the scan's range, or after tanh as in the thesis, |tanh(x) - tanh(x + G)| / 2."""


class AlignedGenerator(Protocol):
    """What is called of the trained generator; images and sums (B,C,H,W)."""

    features: int  # of the classifier that it is conditioned on, 0: none

    def total(self, images: Tensor, condition: Tensor | None) -> Tensor: ...  # x + G, unbounded
    def in_input_range(self, total: Tensor) -> Tensor: ...
    def align(self, images: Tensor) -> Tensor: ...
    def aligned(self, total: Tensor) -> Tensor: ...


class CoinAligned(GeneratorPass):
    """The change that the aligned generator makes."""

    Params = CoinAlignedParams
    params: CoinAlignedParams
    generator: AlignedGenerator

    def explain(self, images: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,C,H,W) in [-1,1]; the generator is conditioned on the classifier's features."""
        classifier, features = self.context.classifier, None
        if self.generator.features:  # in full precision, as in training
            features = classifier.penultimate(images)
        with self.context.runtime.autocast():
            total = self.generator.total(images, features).float()
        counterfactual = self.generator.in_input_range(total).clamp(-1, 1)  # all else compares it with the scan
        if self.params.compare == "input_range":
            return ExplanationBatch.from_counterfactual(images, counterfactual)
        difference = self.generator.align(images) - self.generator.aligned(total)
        return ExplanationBatch(map_of_change(difference), counterfactual)
