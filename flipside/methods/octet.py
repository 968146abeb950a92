"""OCTET (Zemni et al. 2023): blobs of the inverted slice are changed until the classifier calls its image healthy.

The released code's behaviour: `mode: style, steps: 100, learning_rate: 0.08, stop: none, composite: none`. Its target
is the opposite of the decision; here every slice goes toward healthy, as with all methods, so that a slice called
healthy stays as it is. The search flips the decision on what is scored: with `composite: residual` that is the scan
plus the generator's change.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.artifacts.explanations import STEPS
from flipside.generators.codes.blobs import Layout
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.latent.blob_method import BlobMethod
from flipside.methods.latent.composite import compose
from flipside.methods.latent.search import SearchParams, search_all_blobs


class OctetParams(SearchParams):
    """Section `methods.octet`."""

    needs: Literal["data/latents/blobgan"]
    """Folder of the inverted slices, with their generator."""
    composite: Literal["residual", "none"]
    """residual: the scan plus the change of the reconstruction; none: the generator's image, as published."""


class Octet(BlobMethod):
    """A search among all blobs of the inverted slice."""

    Params = OctetParams
    extras = (STEPS,)
    params: OctetParams

    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Counterfactuals of images (B,C,H,W) in [-1,1] that were inverted as `rows` (B,) of the store."""
        start = self.latents.of(rows, images.device)
        with torch.no_grad():
            reconstruction = self.generator.render(start)

        def show(layout: Layout, chosen: Tensor) -> Tensor:
            made = self.generator.render(layout)
            return compose(self.params.composite, images[chosen], made, reconstruction[chosen])

        found = search_all_blobs(show, self.context.classifier, start, self.params)
        with torch.no_grad():
            counterfactual = show(found.layout, torch.arange(len(images), device=images.device)).clamp(-1, 1)
        return ExplanationBatch.from_counterfactual(images, counterfactual, {STEPS: found.steps})
