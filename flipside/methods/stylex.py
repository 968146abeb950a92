"""StylEx (Lang et al. 2021): the found attributes are moved, one after the other, until the classifier says healthy.

The counterfactual is what the generator makes of the encoded slice with these moves; nothing of the scan is pasted
back. A slice whose reconstruction is called healthy by the margin stays as reconstructed.
"""

from __future__ import annotations

import math
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


class StylexParams(MethodParams):
    """Section `methods.stylex`."""

    needs: Literal["models/attributes/stylegan"]
    """Folder of the found attributes, with their generator."""
    selection: Literal["independent", "subset"]
    """Which attribute is moved next: the one with the greatest effect of its own (independent), or on top of those that
    are moved already (subset). One that doesn't help is not moved."""
    margin: float = Field(ge=0, lt=0.5)
    """How far past one half, in probability, an image has to be to be called healthy by the margin."""


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
        base = self.logits(styles, torch.zeros(len(images), len(self.attributes), dtype=torch.bool,
                                               device=images.device))
        chosen = self.search(styles, base)
        counterfactual = self.render(styles, chosen)
        return ExplanationBatch.from_counterfactual(
            images, counterfactual, {STEPS: chosen.sum(dim=1), F_RECONSTRUCTION: torch.sigmoid(base)})

    def search(self, styles: Styles, base: Tensor) -> Tensor:
        """The moves (B,K) bool of images with these styles and, as encoded, logits (B,)."""
        chosen = torch.zeros(len(base), len(self.attributes), dtype=torch.bool, device=base.device)
        logits, searched = base.clone(), base > self.enough
        effects = torch.full(chosen.shape, -torch.inf, device=base.device)  # (B,K)
        if searched.any():
            effects[searched] = self.measure_effects(styles.rows(searched), chosen[searched], base[searched])
        for _ in range(len(self.attributes)):
            left = effects.masked_fill(chosen, -torch.inf)
            best, attribute = left.max(dim=1)  # (B,)
            rows = ((logits > self.enough) & (best > 0)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            chosen[rows, attribute[rows]] = True
            logits[rows] = self.logits(styles.rows(rows), chosen[rows])
            if self.params.selection == "subset":
                effects[rows] = self.measure_effects(styles.rows(rows), chosen[rows], logits[rows])
        return chosen

    def measure_effects(self, styles: Styles, chosen: Tensor, logits: Tensor) -> Tensor:
        """By how much each further move lowers the logits (B,) of images with the moves `chosen` (B,K): (B,K)."""
        found = []
        for attribute in range(len(self.attributes)):
            more = chosen.clone()
            more[:, attribute] = True
            found.append(logits - self.logits(styles, more))
        return torch.stack(found, dim=1)

    def render(self, styles: Styles, chosen: Tensor) -> Tensor:
        """Images (B,C,H,W) in [-1,1] with the moves `chosen` (B,K)."""
        return self.generator.render(self.attributes.apply(styles, chosen)).clamp(-1, 1)

    def logits(self, styles: Styles, chosen: Tensor) -> Tensor:
        """The classifier's logits (B,) of abnormal of these images."""
        return self.classifier(self.render(styles, chosen)).float()
