"""How far a counterfactual is from its scan in the maps of the classifier, and the features that it pools."""

from __future__ import annotations

import numpy as np
import torch

from flipside.classifiers.networks.backbones import Classifier
from flipside.classifiers.networks.perceptual import map_distance
from flipside.core.runtime import Runtime
from flipside.core.store import as_channels


@torch.no_grad()
def classifier_features(classifier: Classifier, images: np.ndarray, others: np.ndarray, runtime: Runtime,
                        batch_size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of scans and their counterparts, both (N,H,W) or (N,C,H,W) in [-1,1]: the classifier's pooled features of either,
    (N,F) float64, and the distance (N,) of their maps."""
    pooled, pooled_others, distances = [], [], []
    for start in range(0, len(images), batch_size):
        one, other = (
            classifier.view(as_channels(
                torch.as_tensor(part[start : start + batch_size], device=runtime.device).float()))  # of (B,C,H,W)
            for part in (images, others))
        pooled.append(one.features.double().cpu().numpy())
        pooled_others.append(other.features.double().cpu().numpy())
        distances.append(map_distance(one.maps, other.maps).cpu().numpy())
    return np.concatenate(pooled), np.concatenate(pooled_others), np.concatenate(distances)
