"""LayerCAM (Jiang et al. 2021) on the last feature maps A: relu(sum_c relu(d logit / d A_c) * A_c), eq. 5-7."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flipside.methods.base.maps import MapMethod, upsample


class LayerCAM(MapMethod):
    """Feature maps, weighted position by position by the positive part of their gradient."""

    def maps(self, images: Tensor, rows: Tensor) -> Tensor:
        classifier = self.context.classifier
        with torch.no_grad():
            features = classifier.features(images)  # (B,C,h,w)
        # The features are the leaf: only the head needs a gradient. Images don't mix, so one sum serves them all.
        with torch.enable_grad():
            features.requires_grad_()
            gradient = torch.autograd.grad(classifier.head(features).sum(), features)[0]  # (B,C,h,w)
        maps = F.relu((F.relu(gradient) * features.detach()).sum(dim=1))  # (B,C,h,w) -> (B,h,w)
        return upsample(maps, images)
