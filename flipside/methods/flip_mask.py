"""flip_mask [own]: the region whose refilling with healthy content flips the classifier, as a probability.

The map is that of a segmenter which learned from many such regions, or the mask network's own; 0.5 is its natural
threshold. The counterfactual fills it with the mask network's content. So the map explains the classifier through the
regions that flip it on the training slices, not through its every quirk.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from flipside.generators.base.generator import filled
from flipside.generators.base.loading import load_generator
from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.method import Context, Method
from flipside.methods.base.parameters import MethodParams
from flipside.segmenters.networks import lesion_probability, load_segmenter, mean_over_flip


class FlipMaskParams(MethodParams):
    """Section `methods.flip_mask`."""

    needs: Literal["models/segmenters/flip_mask", "models/generators/flip_mask"]
    """Folder of the segmenter that was taught by the mask network, or of the mask network, whose mask then is the
    map."""


class FlipMask(Method):
    """The probability that a pixel belongs to what flips the decision."""

    Params = FlipMaskParams
    teacher: Any  # the mask network

    def __init__(self, params: MethodParams, context: Context):
        super().__init__(params, context)
        self.student = None
        if params.needs.startswith("models/segmenters/"):
            networks = load_segmenter(params.needs, context.runtime)
            self.student, self.teacher = networks["student"], networks["teacher"]
        else:
            self.teacher = load_generator(params.needs, context.runtime)

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Explain images (B,C,H,W) in [-1,1]; neither their rows nor their organs are needed."""
        with self.context.runtime.autocast():
            content = self.teacher.parts(images)[1].float()
            if self.student is None:
                mask = mean_over_flip(lambda seen: self.teacher.parts(seen)[0].float(), images)
        if self.student is not None:
            mask = lesion_probability(self.student, images, self.context.runtime)  # (B,1,H,W)
        return ExplanationBatch(mask[:, 0], filled(images, mask, content).clamp(-1, 1))
