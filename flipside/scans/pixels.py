"""Slices as grids of pixels: resized, and counted in squares."""

from __future__ import annotations

import numpy as np


def resize_bilinear(image: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(…,R,C) float32 -> (…,rows,columns) float32; shrinking averages over all pixels covered, so noise doesn't
    alias."""
    import torch  # only here: it takes seconds, for which stages that place or count masks needn't wait

    planes = torch.from_numpy(image).reshape(1, -1, *image.shape[-2:])  # (1,N,R,C)
    resized = torch.nn.functional.interpolate(planes, (rows, columns), mode="bilinear", align_corners=False,
                                              antialias=True)
    return resized.numpy().reshape(*image.shape[:-2], rows, columns)


def resize_nearest(array: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(…,H,W) -> (…,rows,columns): each new pixel takes the value of the old pixel in which its centre lies."""
    height, width = array.shape[-2:]
    row = (2 * np.arange(rows) + 1) * height // (2 * rows)
    column = (2 * np.arange(columns) + 1) * width // (2 * columns)
    return array[..., row[:, None], column]


def gather(slices: np.ndarray) -> np.ndarray:
    """Slices (Z,R,C), copied where each of them is scattered over the whole array, so that each lies in one place."""
    if abs(slices.strides[0]) < max(map(abs, slices.strides)):
        return np.ascontiguousarray(slices)
    return slices


def count_in_squares(mask: np.ndarray, side: int) -> np.ndarray:
    """Pixels (H-side+1,W-side+1) of a mask (H,W) bool in the square of `side` pixels below and right of each corner."""
    sums = np.pad(mask.astype(np.int64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    return sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
