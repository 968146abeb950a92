"""CX-GAN (Murtaza 2026, arXiv:2605.05283): the map M(x) = -F(G(x)) and the counterfactual instance G(x)."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from flipside.artifacts.explanations import CYCLE_L1, SIGNED_MAP
from flipside.methods.base.batch import ExplanationBatch, map_of_change
from flipside.methods.base.generator_pass import GeneratorPass
from flipside.methods.base.parameters import MethodParams


class CxGanParams(MethodParams):
    """Section `methods.cx_gan`."""

    needs: Literal["models/generators/cx_gan"]
    """Folder of the trained generators."""
    attribution: Literal["map", "instance"]
    """What the attribution is. map: M(x), as published; where G(x) is a healthy image without a trace of the lesion,
    the integrated model's F, which sees nothing else, can't know where to draw. instance: the change from x to G(x)."""


class CxGenerators(Protocol):
    """What is called of the trained generators; images and maps (B,C,H,W) in [-1,1]."""

    def healthy(self, images: Tensor) -> Tensor: ...  # G(x)
    def change(self, images: Tensor, healthy: Tensor) -> Tensor: ...  # M(x)
    def abnormal(self, images: Tensor) -> Tensor: ...  # y + F(y)


class CxGan(GeneratorPass):
    """The map of a pair of generators in a cycle."""

    Params = CxGanParams
    extras = (CYCLE_L1, SIGNED_MAP)
    # Trained on labels alone: its maps show what separates the classes and say nothing about any classifier. The
    # randomisation check reveals that.
    explains_any_classifier = True
    params: CxGanParams
    generator: CxGenerators

    def explain(self, images: Tensor) -> ExplanationBatch:
        """Of images (B,C,H,W) in [-1,1]: attribution |M| / 2, on the scale of the other methods' changes, or
        |x - G(x)| / 2; the instance G(x), M itself, and how far from x the way back from the instance ends."""
        with self.context.runtime.autocast():
            counterfactual = self.generator.healthy(images).float().clamp(-1, 1)
            drawn = self.generator.change(images, counterfactual).float()  # M
            back = self.generator.abnormal(counterfactual).float()
        cycle_l1 = (back - images).abs().mean(dim=(1, 2, 3)) / 2  # (B,)
        change = counterfactual - images if self.params.attribution == "instance" else drawn
        return ExplanationBatch(map_of_change(change), counterfactual, {CYCLE_L1: cycle_l1, SIGNED_MAP: drawn})
