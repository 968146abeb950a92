"""Control of counterfactual metrics: one image for every slice, the mean of the training slices labelled healthy."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from flipside.core.store import SliceStore, as_channels
from flipside.methods.base.destruction import Destruction, DestructionParams
from flipside.methods.base.method import Context


class MeanHealthy(Destruction):
    """An image of nobody: pixel by pixel the mean over the healthy training slices, known by their labels alone."""

    def __init__(self, params: DestructionParams, context: Context):
        super().__init__(params, context)
        store = SliceStore.open(params.needs)
        rows = store.rows("train", label=0)
        if len(rows) == 0:
            raise ValueError(f"{params.needs} has no training slice labelled healthy, of which mean_healthy would be "
                             "the mean: change how the data set is split, or take `methods.mean_healthy` out of "
                             "params.yaml")
        total = np.zeros(as_channels(store.images).shape[1:])
        for row in rows:  # one by one: a store may be larger than the memory
            total += as_channels(store.images[row : row + 1])[0]
        self.mean = torch.as_tensor(total / len(rows), dtype=torch.float32, device=context.runtime.device)  # (C,H,W)

    def destroy(self, images: Tensor) -> Tensor:
        return self.mean.expand_as(images)
