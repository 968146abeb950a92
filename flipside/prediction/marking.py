"""Where a map is cut: the one place that knows the threshold policy."""

from __future__ import annotations

import numpy as np


def heights_and_thresholds(maps: np.ndarray, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """Heights (K,H,W) float32 and thresholds (K,) of maps (K,H,W) in [0,1] under a method's threshold: a pixel is
    marked where its height is strictly above its slice's threshold."""
    return np.asarray(maps, np.float32), np.full(len(maps), cut, np.float32)
