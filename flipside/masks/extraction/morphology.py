"""Clean masks as COIN (Shvetsov et al., 2024) does: 3x3 opening, 3x3 closing, largest connected component.

The paper closes first, its code opens first: the order is a parameter. All functions take whole stacks, and pixels
beyond the image's edge have no say (an opening never adds pixels, a closing never removes any, at the edge neither).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import ndimage

Step = Literal["open", "close", "largest_component"]

WINDOW = (1, 3, 3)  # 3x3 within each slice
EIGHT_NEIGHBOURS = np.zeros((3, 3, 3), bool)  # of a pixel in its own slice; slices are never connected
EIGHT_NEIGHBOURS[1] = True


def clean(masks: np.ndarray, steps: list[Step]) -> np.ndarray:
    """Apply the steps in order to masks (N,H,W) bool or uint8 0/1; returns a new array of the same type.

    Without `largest_component` among the steps, values may be grey levels: opening and closing by a flat window
    commute with thresholding, so the cleaned levels above t are the cleaned mask `levels > t`.
    """
    grey = masks.view(np.uint8) if masks.dtype == bool else masks
    for step in steps:
        if step == "open":
            grey = ndimage.grey_opening(grey, size=WINDOW, mode="nearest")  # nearest: the edge adds no new values
        elif step == "close":
            grey = ndimage.grey_closing(grey, size=WINDOW, mode="nearest")
        elif step == "largest_component":
            grey = largest_component(grey > 0).view(np.uint8)
        else:
            raise ValueError(f"unknown morphology step {step!r}: expected open, close or largest_component")
    return grey.view(bool) if masks.dtype == bool else grey.astype(masks.dtype)


def largest_component(masks: np.ndarray) -> np.ndarray:
    """Keep the largest 8-connected component of each of the masks (N,H,W) bool; of equal ones the first by rows."""
    labels, count = ndimage.label(masks, EIGHT_NEIGHBOURS)  # components are numbered through the whole stack
    if count == 0:
        return np.zeros(masks.shape, bool)
    pixels = np.flatnonzero(masks)
    component = labels.ravel()[pixels]
    sizes = np.bincount(component, minlength=count + 1)
    owner = np.empty(count + 1, np.int64)  # slice of each component
    owner[component] = pixels // (masks.shape[1] * masks.shape[2])
    order = np.lexsort((np.arange(1, count + 1), -sizes[1:], owner[1:])) + 1  # by slice, then size, then number
    first = np.r_[True, np.diff(owner[order]) > 0]
    kept = np.zeros(count + 1, bool)
    kept[order[first]] = True
    return kept[labels]
