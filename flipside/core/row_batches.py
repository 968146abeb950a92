"""Large stacks of images in parts that fit a processor's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator

BATCH_PIXELS = 2**20  # pixels in work at once


def row_batches(shape: tuple[int, ...], least_pixels: int = 0) -> Iterator[slice]:
    """Row ranges of an array (N,H,W) or (N,C,H,W) of at most BATCH_PIXELS pixels each; a row counts `least_pixels` at
    least."""
    rows = max(1, BATCH_PIXELS // max(1, math.prod(shape[1:]), least_pixels))
    return (slice(start, min(start + rows, shape[0])) for start in range(0, shape[0], rows))
