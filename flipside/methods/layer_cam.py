"""LayerCAM (Jiang et al. 2021): feature maps A give relu(sum_c relu(d logit / d A_c) * A_c), eq. 5-7."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from flipside.methods.base.feature_maps import FeatureMapMethod


class LayerCAM(FeatureMapMethod):
    """Feature maps, weighted position by position by the positive part of their gradient."""

    def coarse_maps(self, images: Tensor) -> list[Tensor]:
        return [F.relu((F.relu(gradient) * features).sum(dim=1))  # (B,C,h,w) -> (B,h,w)
                for features, gradient in self.features_and_gradients(images)]
