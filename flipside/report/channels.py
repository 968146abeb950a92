"""Which channels of a slice a picture shows."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from flipside.core.store import RGB


def shown_channel(names: Sequence[str]) -> int:
    """The one channel that a picture shows where it can't show all: the first of the slice itself, as those of its
    neighbours have an offset at the end of their names (`image-1`, `image`, `image+1`)."""
    own = [not re.search(r"[+-]\d+$", name) for name in names]
    return own.index(True) if any(own) else 0


def shown_channels(images: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Of slices (...,H,W) or (...,C,H,W) what a picture shows: (...,H,W), or (...,3,H,W) of red, green and blue.

    names: the C channels' names; of slices (...,H,W) there is one.
    """
    if len(names) == 1 or tuple(names) == RGB:
        return images
    return images[..., shown_channel(names), :, :]
