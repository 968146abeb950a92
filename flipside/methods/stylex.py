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

from flipside.core.params import Params
from flipside.generators.nn.stylegan_synthesis import Styles
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import Context, ExplanationBatch
from flipside.methods.latent.attributes import Attributes


class MethodParams(Params):
    needs: Literal["models/attributes/stylegan"]
    """Folder of the found attributes, with their generator."""
    selection: Literal["independent", "subset"]
    """Which attribute is next: the best of those left by its effect in the image as encoded, or (subset) on top of
    those that are moved already. One that doesn't help is not moved."""
    margin: float = Field(ge=0, lt=0.5)
    """By which the probability has to be past one half."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.params, self.classifier = params, context.classifier
        self.generator = load_generator(params.needs, context.runtime)
        self.attributes = Attributes.open(params.needs, context.runtime.device)
        self.enough = -math.log((0.5 + params.margin) / (0.5 - params.margin))  # logit that is healthy by the margin

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,1,H,W) in [-1,1]; steps: attributes moved."""
        styles = self.generator.encoded(images, torch.sigmoid(self.classifier(images).float()))
        base = self.logits(styles, torch.zeros(len(images), len(self.attributes), dtype=torch.bool,
                                               device=images.device))
        chosen = self.search(styles, base)
        counterfactual = self.made(styles, chosen)
        return ExplanationBatch.from_counterfactual(images, counterfactual, chosen.sum(dim=1),
                                                    f_reconstruction=torch.sigmoid(base))

    def search(self, styles: Styles, base: Tensor) -> Tensor:
        """The moves (B,K) bool of images with these styles and, as encoded, logits (B,)."""
        chosen = torch.zeros(len(base), len(self.attributes), dtype=torch.bool, device=base.device)
        logits, searched = base.clone(), base > self.enough
        effects = torch.full(chosen.shape, -torch.inf, device=base.device)  # (B,K)
        if searched.any():
            effects[searched] = self.effects(styles.rows(searched), chosen[searched], base[searched])
        for _ in range(len(self.attributes)):
            left = effects.masked_fill(chosen, -torch.inf)
            best, attribute = left.max(dim=1)  # (B,)
            rows = ((logits > self.enough) & (best > 0)).nonzero().squeeze(1)
            if len(rows) == 0:
                break
            chosen[rows, attribute[rows]] = True
            logits[rows] = self.logits(styles.rows(rows), chosen[rows])
            if self.params.selection == "subset":
                effects[rows] = self.effects(styles.rows(rows), chosen[rows], logits[rows])
        return chosen

    def effects(self, styles: Styles, chosen: Tensor, logits: Tensor) -> Tensor:
        """What the logits (B,) of images with the moves `chosen` (B,K) fall by with one more: (B,K)."""
        found = []
        for attribute in range(len(self.attributes)):
            more = chosen.clone()
            more[:, attribute] = True
            found.append(logits - self.logits(styles, more))
        return torch.stack(found, dim=1)

    def made(self, styles: Styles, chosen: Tensor) -> Tensor:
        """Images (B,1,H,W) in [-1,1] with the moves `chosen` (B,K)."""
        return self.generator.render(self.attributes.applied(styles, chosen)).clamp(-1, 1)

    def logits(self, styles: Styles, chosen: Tensor) -> Tensor:
        return self.classifier(self.made(styles, chosen)).float()
