"""Where a map is cut: the one place that knows the threshold policy."""

from __future__ import annotations

import numpy as np

from flipside.artifacts.explanations import CALLED_ABNORMAL
from flipside.masks.extraction.label_free import FittedRule, find_thresholds, heights
from flipside.masks.extraction.thresholds import Cut, MaskParams


def heights_and_thresholds(maps: np.ndarray, organ: np.ndarray, probability: np.ndarray, cut: Cut,
                           params: MaskParams) -> tuple[np.ndarray, np.ndarray]:
    """Heights (K,H,W) float32 and thresholds (K,) of maps (K,H,W) in [0,1]: a pixel is marked where its height is
    strictly above its slice's threshold.

    organ (K,H,W) 0/1; probability (K,) of abnormal: with `masks.gate` nothing of a slice called healthy is marked.
    """
    maps = np.asarray(maps, np.float32)
    if params.inside_organ:
        maps = np.where(organ > 0, maps, np.float32(0))
    if isinstance(cut, FittedRule):
        high = heights(maps, cut)
        thresholds = find_thresholds(high, cut)
    else:
        high, thresholds = maps, np.full(len(maps), cut, np.float32)
    if params.gate:
        thresholds[probability < CALLED_ABNORMAL] = np.inf
    return high, thresholds
