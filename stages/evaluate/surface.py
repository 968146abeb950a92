"""Distances in mm between a mask and the lesion: 95th percentile Hausdorff, average symmetric surface, Hausdorff.

All take masks and truth (N,H,W) 0/1 and the pixel spacing (N,2) in mm (rows, columns) and give one number per slice. A
slice whose mask is empty scores the image's diagonal; truth is never empty.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt

from stages.evaluate.components import find_components
from stages.evaluate.metrics import batches

PERCENTILE = 95


def diagonal(shape: tuple[int, ...], spacing: np.ndarray) -> np.ndarray:
    """Diagonal (N,) in mm of images (N,H,W): no two of its pixels lie farther apart."""
    return np.hypot(shape[1] * spacing[:, 0], shape[2] * spacing[:, 1])


def border(masks: np.ndarray) -> np.ndarray:
    """Pixels (N,H,W) bool of masks (N,H,W) bool with one of their 4 neighbours outside the mask or the image."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    inner = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    return masks & ~inner


def surface_distances(masks: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HD95 and average symmetric surface distance (N,), between border pixels as MONAI takes them.

    HD95 is the greater of the two directed 95th percentiles; the average is over the borders of both together.
    """
    hd95, average = diagonal(masks.shape, spacing), diagonal(masks.shape, spacing)
    for part in batches(masks.shape):
        borders = border(np.asarray(masks[part]) > 0), border(np.asarray(truth[part]) > 0)
        for row, (ours, theirs) in enumerate(zip(*borders, strict=True), start=part.start):
            if ours.any():
                there, back = directed(ours, theirs, spacing[row])
                hd95[row] = max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))
                average[row] = (there.sum() + back.sum()) / (len(there) + len(back))
    return hd95, average


def hausdorff(masks: np.ndarray, truth: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Hausdorff distance (N,) between a whole mask and each component of the truth, the median over these."""
    distance = diagonal(masks.shape, spacing)
    lesions = find_components(truth)
    first = np.searchsorted(lesions.slice_of, np.arange(len(masks) + 1))
    for row in np.flatnonzero(np.asarray(masks).any(axis=(1, 2))):
        distance[row] = np.median([
            max(map(np.max, directed(masks[row] > 0, lesions.labels[row] == number + 1, spacing[row])))
            for number in range(first[row], first[row + 1])])
    return distance


def directed(ours: np.ndarray, theirs: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm of each pixel of ours (H,W) bool to the nearest of theirs (H,W) bool, and back; none empty."""
    either = ours | theirs
    box = tuple(slice(found[0], found[-1] + 1) for found in (
        np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))))
    ours, theirs = ours[box], theirs[box]
    return (distance_transform_edt(~theirs, sampling=spacing)[ours],
            distance_transform_edt(~ours, sampling=spacing)[theirs])
