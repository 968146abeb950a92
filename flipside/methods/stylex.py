"""StylEx (Lang et al. 2021): the found attributes are moved, one after the other, until the classifier says healthy.

With `composite: residual` the counterfactual is the scan plus what the moves change in its reconstruction, and its
decision is the one that is flipped; with `none`, as published, it is what the generator makes of the encoded slice with
the moves. A slice that is called healthy by the margin to begin with stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from flipside.artifacts.explanations import F_RECONSTRUCTION, STEPS
from flipside.generators.codes.styles import Styles
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.generator_pass import GeneratorMethod
from flipside.methods.base.method import Context
from flipside.methods.base.parameters import MethodParams
from flipside.methods.latent.attributes import Attributes, StyleGenerator
from flipside.methods.latent.composite import compose


class StylexParams(MethodParams):
    """Section `methods.stylex`."""

    needs: Literal["models/attributes/stylegan"]
    """Folder of the found attributes, with their generator."""
    selection: Literal["independent", "subset"]
    """Which attribute is moved next: the one with the greatest effect of its own (independent), or on top of those that
    are moved already (subset). One that doesn't help is not moved."""
    composite: Literal["residual", "none"]
    """residual: the scan plus the change of the reconstruction; none: the generator's image, as published."""
    margin: float = Field(ge=0, lt=0.5)
    """How far past one half, in probability, an image has to be to be called healthy by the margin."""


@dataclass(frozen=True)
class Encoded:
    """B slices as the generator has them."""

    images: Tensor  # (B,C,H,W) in [-1,1]
    styles: Styles
    reconstruction: Tensor  # (B,C,H,W), unbounded

    def rows(self, chosen: Tensor) -> Encoded:
        """Some of them, by positions or as a mask (B,)."""
        return Encoded(self.images[chosen], self.styles.rows(chosen), self.reconstruction[chosen])


class Stylex(GeneratorMethod):
    """The found attributes, moved one after the other."""

    Params = StylexParams
    extras = (STEPS, F_RECONSTRUCTION)
    params: StylexParams
    generator: StyleGenerator

    def __init__(self, params: StylexParams, context: Context):
        super().__init__(params, context)
        self.classifier = context.classifier
        self.attributes = Attributes.open(params.needs, context.runtime.device)
        self.enough = -math.log((0.5 + params.margin) / (0.5 - params.margin))  # logit that is healthy by the margin

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,C,H,W) in [-1,1]; their steps are the attributes that were moved."""
        styles = self.generator.encoded(images, torch.sigmoid(self.classifier(images).float()))
        encoded = Encoded(images, styles, self.generator.render(styles))
        chosen = self.search(encoded)
        of_reconstruction = self.classifier(encoded.reconstruction.clamp(-1, 1)).float()
        return ExplanationBatch.from_counterfactual(
            images, self.render(encoded, chosen),
            {STEPS: chosen.sum(dim=1), F_RECONSTRUCTION: torch.sigmoid(of_reconstruction)})

    def search(self, encoded: Encoded) -> Tensor:
        """The moves (B,K) bool of encoded slices."""
        count, device = len(encoded.images), encoded.images.device
        chosen = torch.zeros(count, len(self.attributes), dtype=torch.bool, device=device)
        logits = self.logits(encoded, chosen)
        searched = logits > self.enough
        effects = torch.full(chosen.shape, -torch.inf, device=device)  # (B,K)
        if searched.any():
            effects[searched] = self.measure_effects(encoded.rows(searched), chosen[searched], logits[searched])
        for _ in range(len(self.attributes)):
            left = effects.masked_fill(chosen, -torch.inf)
            best, attribute = left.max(dim=1)  # (B,)
            rows = ((logits > self.enough) & (best > 0)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            chosen[rows, attribute[rows]] = True
            logits[rows] = self.logits(encoded.rows(rows), chosen[rows])
            if self.params.selection == "subset":
                effects[rows] = self.measure_effects(encoded.rows(rows), chosen[rows], logits[rows])
        return chosen

    def measure_effects(self, encoded: Encoded, chosen: Tensor, logits: Tensor) -> Tensor:
        """By how much each further move lowers the logits (B,) of images with the moves `chosen` (B,K): (B,K)."""
        found = []
        for attribute in range(len(self.attributes)):
            more = chosen.clone()
            more[:, attribute] = True
            found.append(logits - self.logits(encoded, more))
        return torch.stack(found, dim=1)

    def render(self, encoded: Encoded, chosen: Tensor) -> Tensor:
        """Counterfactuals (B,C,H,W) in [-1,1] with the moves `chosen` (B,K)."""
        made = self.generator.render(self.attributes.apply(encoded.styles, chosen))
        return compose(self.params.composite, encoded.images, made, encoded.reconstruction).clamp(-1, 1)

    def logits(self, encoded: Encoded, chosen: Tensor) -> Tensor:
        """The classifier's logits (B,) of abnormal of these counterfactuals."""
        return self.classifier(self.render(encoded, chosen)).float()
