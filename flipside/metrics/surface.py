"""Distances in mm between a mask and the lesion: 95th percentile Hausdorff, average symmetric surface, Hausdorff.

Masks and truth are (N,H,W) 0/1, the pixel spacing (N,2) is in mm (rows, columns); there is one number per slice. A
slice whose mask is empty scores the image's diagonal; truth is never empty.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from flipside.core.row_batches import row_batches
from flipside.metrics.components import find_boxes, find_components

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
    for part in row_batches(masks.shape):
        borders = border(np.asarray(masks[part]) > 0), border(np.asarray(truth[part]) > 0)
        for row, (ours, theirs) in enumerate(zip(*borders, strict=True), start=part.start):
            if ours.any():
                there, back = directed(ours, theirs, spacing[row])
                hd95[row] = max(np.percentile(there, PERCENTILE), np.percentile(back, PERCENTILE))
                average[row] = (there.sum() + back.sum()) / (len(there) + len(back))
    return hd95, average


def hausdorff(stacks: Sequence[np.ndarray], truth: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Hausdorff distance (S,N) between whole masks and each component of the truth, the median over these.

    stacks: S stacks of masks (N,H,W) bool, which share the distances to the truth.
    """
    distance = np.tile(diagonal(truth.shape, spacing), (len(stacks), 1))
    lesions = find_components(truth)
    lesions_of: list[list[np.ndarray]] = [[] for _ in truth]  # slice -> for each of its lesions: distances (S,)
    for number, (row, box) in enumerate(zip(lesions.slice_of, find_boxes(lesions), strict=True), start=1):
        lesion = lesions.labels[row] == number
        to_lesion = distance_transform_edt(~lesion, sampling=spacing[row])
        lesions_of[row].append(np.array([
            _hausdorff_to_lesion(stack[row], lesion, to_lesion, box, spacing[row]) for stack in stacks]))
    for row, distances in enumerate(lesions_of):
        filled = [bool(stack[row].any()) for stack in stacks]
        distance[filled, row] = np.median(distances, axis=0)[filled]
    return distance


def _hausdorff_to_lesion(mask: np.ndarray, lesion: np.ndarray, to_lesion: np.ndarray, box: tuple[slice, slice],
                         spacing: np.ndarray) -> float:
    """Of mask and lesion (H,W) bool, with the distance of each pixel to the lesion and the lesion's box; 0 if empty."""
    there = to_lesion[mask]
    if len(there) == 0:
        return 0.0
    # No lesion pixel is farther from the mask than the closest pair is apart plus the lesion is long: what lies outside
    # this window can't be the nearest.
    sides = [part.stop - part.start for part in box]
    reach = there.min() + np.hypot(*(sides * spacing))
    margins = np.ceil(reach / spacing).astype(int) + 1
    window = tuple(slice(max(0, part.start - margin), part.stop + margin)
                   for part, margin in zip(box, margins, strict=True))
    back = distance_transform_edt(~mask[window], sampling=spacing)[lesion[window]]
    return float(max(there.max(), back.max()))


def directed(ours: np.ndarray, theirs: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance in mm of each pixel of ours (H,W) bool to the nearest of theirs (H,W) bool, and back; none empty."""
    either = ours | theirs
    box = tuple(slice(found[0], found[-1] + 1) for found in (
        np.flatnonzero(either.any(axis=1)), np.flatnonzero(either.any(axis=0))))
    ours, theirs = ours[box], theirs[box]
    return (distance_transform_edt(~theirs, sampling=spacing)[ours],
            distance_transform_edt(~ours, sampling=spacing)[theirs])
