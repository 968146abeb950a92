"""Control of counterfactual metrics: a constant image, on which no lesion is left, and nothing else either."""

from __future__ import annotations

import torch
from torch import Tensor

from flipside.methods.base.destruction import Destruction, DestructionParams
from flipside.methods.base.maps import BASELINES, Baseline


class GreyParams(DestructionParams):
    """Section `methods.grey`."""

    baseline: Baseline
    """The one value of all pixels: `mid_grey`, the middle of the range, or `air`, its lower end."""


class Grey(Destruction):
    """One grey for all pixels."""

    Params = GreyParams
    params: GreyParams

    def destroy(self, images: Tensor) -> Tensor:
        return torch.full_like(images, BASELINES[self.params.baseline])
