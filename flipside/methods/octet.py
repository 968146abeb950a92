"""OCTET (Zemni et al. 2023): blobs of the inverted slice are changed until the classifier calls its image healthy.

The released code's behaviour: `mode: style, steps: 100, learning_rate: 0.08, stop: none`. Its target is the opposite of
the decision; here every slice goes toward healthy, as with all methods, so that a slice called healthy stays as
inverted. The counterfactual is what the generator makes; nothing of the scan is pasted back.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from flipside.generators.nn.blobs import Layout
from flipside.generators.nn.networks import clamped
from flipside.generators.training.loading import load_generator
from flipside.methods.base.method import Context, ExplanationBatch
from flipside.methods.latent.latent_search import Found, SearchParams, Trial, change, search, toward_healthy
from flipside.methods.latent.latents import Latents


class MethodParams(SearchParams):
    needs: Literal["data/latents/blobgan"]
    """Folder of the inverted slices, with their generator."""


class Method:
    def __init__(self, params: MethodParams, context: Context):
        self.params, self.context = params, context
        self.generator = load_generator(params.needs, context.runtime)
        self.latents = Latents.open(params.needs)
        self.seconds_before = self.latents.timing["seconds_per_image"]

    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,1,H,W) in [-1,1] that were inverted as `rows` (B,) of the store."""
        start = self.latents.of(rows, images.device)
        found = unrestricted(self.generator, self.context.classifier, start, self.params)
        with torch.no_grad():
            counterfactual = self.generator.render(found.layout).clamp(-1, 1)
        return ExplanationBatch.from_counterfactual(images, counterfactual, found.steps)


def unrestricted(generator: nn.Module, classifier: nn.Module, start: Layout, params: SearchParams,
                 residual: Tensor | None = None) -> Found:
    """Blobs near `start` whose image the classifier calls healthy: OCTET's objective, on logits.

    With `residual` (B,1,H,W), what the inversion left of the scans, added to the generator's images, the decision that
    is turned is that of the scan, and not of its reconstruction.
    """
    def objective(layout: Layout, rows: Tensor) -> Trial:
        images = generator.render(layout)
        logits = classifier(clamped(images if residual is None else images + residual[rows])).float()
        distance = change(layout, start.rows(rows), params.mode)
        return Trial(toward_healthy(logits) + params.proximity * distance, logits, distance)

    return search(start, objective, params)
