"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): feature maps A give relu(sum_c w_c A_c), eq. 2, with w_c the mean
of d logit / d A_c over the positions, eq. 1."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flipside.methods.base.feature_maps import FeatureMapMethod


class GradCAM(FeatureMapMethod):
    """Feature maps, each weighted by its mean gradient."""

    def coarse_maps(self, images: Tensor) -> list[Tensor]:
        return [F.relu(torch.einsum("bc,bchw->bhw", gradient.mean(dim=(2, 3)), features))
                for features, gradient in self.features_and_gradients(images)]
