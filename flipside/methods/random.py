"""Control: a uniformly random map. A method that doesn't beat it has found nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from flipside.core.runtime import generator_for
from flipside.methods.base.maps import MapMethod


class RandomMap(MapMethod):
    """Uniform noise."""

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        # One generator per image: a map depends on the seed and the image's place in the store alone.
        generators = [generator_for(self.context.seed, row) for row in rows.tolist()]
        draws = [torch.rand(images.shape[-2:], generator=generator) for generator in generators]
        return torch.stack(draws).to(images.device)  # (B,H,W)
