"""How far a counterfactual is from its scan in the maps of the classifier, and the features that it pools."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.classify.backbones import Classifier
from stages.common.runtime import Runtime


def maps_by_size(trunk: nn.Module, images: Tensor) -> list[Tensor]:
    """Maps of images (B,1,H,W) at several depths: the last (B,C,h,w) of each size; the trunk's output ends the list."""
    maps: list[Tensor] = []
    x = images
    for layer in _layers(trunk):
        x = layer(x)
        if maps and maps[-1].shape[-2:] == x.shape[-2:]:
            maps[-1] = x
        else:
            maps.append(x)
    return maps


def _layers(module: nn.Module) -> list[nn.Module]:
    """A trunk's layers in the order in which they are called, nested `Sequential`s taken apart."""
    if type(module).forward is nn.Sequential.forward:
        return [layer for child in module.children() for layer in _layers(child)]
    return [module]


def map_distance(maps: list[Tensor], others: list[Tensor]) -> Tensor:
    """Distance (B,) in [0,4] between two images' maps, a list of (B,C,h,w) each.

    As LPIPS (Zhang et al., 2018, equation 1) but without its trained weights and in the mean over the depths: the
    squared difference of the maps, at each position scaled to unit length over the channels, averaged over positions.
    """
    depths = [(F.normalize(first, dim=1) - F.normalize(second, dim=1)).square().sum(dim=1).mean(dim=(1, 2))
              for first, second in zip(maps, others, strict=True)]  # (B,C,h,w) -> (B,)
    return torch.stack(depths).mean(dim=0)


@torch.no_grad()
def classifier_features(classifier: Classifier, images: np.ndarray, others: np.ndarray, runtime: Runtime,
                        batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of scans and their counterparts, both (N,H,W) in [-1,1]: the classifier's pooled features of either, (N,C)
    float64, and the distance (N,) of their maps."""
    pooled, pooled_others, distances = [], [], []
    for start in range(0, len(images), batch_size):
        maps, other_maps = (
            maps_by_size(classifier.trunk, torch.as_tensor(part[start : start + batch_size], device=runtime.device)
                         .float().unsqueeze(1))  # (B,H,W) -> (B,1,H,W)
            for part in (images, others))
        pooled.append(classifier.pooled(maps[-1]).double().cpu().numpy())
        pooled_others.append(classifier.pooled(other_maps[-1]).double().cpu().numpy())
        distances.append(map_distance(maps, other_maps).cpu().numpy())
    return np.concatenate(pooled), np.concatenate(pooled_others), np.concatenate(distances)
