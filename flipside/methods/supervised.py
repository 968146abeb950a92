"""Upper bound, no weakly supervised method: a segmenter that was trained with the training slices' lesion masks.

The network of flip_mask's student, trained as long. No classifier has a part in its maps.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from flipside.methods.base.batch import ExplanationBatch
from flipside.methods.base.method import Context, Method
from flipside.methods.base.parameters import MethodParams
from flipside.segmenters.networks import lesion_probability, load_segmenter


class SupervisedParams(MethodParams):
    """Section `methods.supervised`."""

    needs: Literal["models/segmenters/supervised"]
    """Folder of the segmenter."""


class Supervised(Method):
    """The probability that a pixel is lesion."""

    Params = SupervisedParams
    explains_any_classifier = True  # its maps don't depend on the classifier, which the randomisation check shows

    def __init__(self, params: MethodParams, context: Context):
        super().__init__(params, context)
        self.student = load_segmenter(params.needs, context.runtime)["student"]

    @torch.no_grad()
    def __call__(self, images: Tensor, rows: Tensor, organ: Tensor) -> ExplanationBatch:
        """Map images (B,C,H,W) in [-1,1]; neither their rows nor their organs are needed."""
        return ExplanationBatch(lesion_probability(self.student, images, self.context.runtime)[:, 0])
