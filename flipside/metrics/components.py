"""Connected components of stacks of masks, and which lesions a mask detects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

EIGHT_NEIGHBOURS = np.zeros((3, 3, 3), bool)  # of a pixel in its own slice; slices are never connected
EIGHT_NEIGHBOURS[1] = True
DETECTION_IOU = 0.1  # of a lesion with one predicted component


@dataclass(frozen=True)
class Components:
    """The C 8-connected components of N masks, numbered 1..C through the stack, slice by slice."""

    labels: np.ndarray  # (N,H,W) int, 0: background
    slice_of: np.ndarray  # (C,) row of the stack, ascending
    sizes: np.ndarray  # (C,) pixels


def find_components(masks: np.ndarray) -> Components:
    """Components of masks (N,H,W) 0/1."""
    labels, count = ndimage.label(np.asarray(masks) > 0, EIGHT_NEIGHBOURS)
    last = np.maximum.accumulate(labels.max(axis=(1, 2), initial=0))  # (N,) greatest number up to each slice
    slice_of = np.repeat(np.arange(len(labels)), np.diff(last, prepend=0))
    return Components(labels, slice_of, np.bincount(labels.ravel(), minlength=count + 1)[1:])


def centres(components: Components) -> np.ndarray:
    """Centre of gravity (C,2), row and column, of each component."""
    columns = components.labels.shape[2]
    result = np.zeros((2, len(components.sizes)))
    for labels, numbers in zip(components.labels, numbers_by_slice(components), strict=True):
        pixels = np.flatnonzero(labels)
        component = labels.ravel()[pixels] - 1 - numbers.start
        for axis, place in enumerate((pixels // columns, pixels % columns)):
            result[axis, numbers] = np.bincount(component, weights=place, minlength=numbers.stop - numbers.start)
    return (result / components.sizes).T


def numbers_by_slice(components: Components) -> list[slice]:
    """Which of the components lie on each slice."""
    first = np.searchsorted(components.slice_of, np.arange(len(components.labels) + 1))
    return [slice(start, stop) for start, stop in zip(first[:-1], first[1:], strict=True)]


def find_boxes(components: Components) -> list[tuple[slice, slice]]:
    """Rows and columns (C) that each component lies within."""
    if not len(components.sizes):  # SciPy wants the greatest label, which an empty stack hasn't
        return []
    return [box[1:] for box in ndimage.find_objects(components.labels)]


def detect(masks: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lesions, lesions detected and false components, each (N,) counts, of masks against truth, both (N,H,W) 0/1.

    A lesion is a component of the truth; it is detected when its IoU with one predicted component is at least
    DETECTION_IOU (localisation by overlap with a low cut-off for small structures, Maier-Hein et al. 2024, Metrics
    Reloaded). A predicted component that touches no lesion is false; one that touches a lesion without detecting it is
    neither. One component over two lesions can detect both.
    """
    lesions, found = find_components(truth), find_components(masks)
    both = (lesions.labels > 0) & (found.labels > 0)
    pairs, overlap = np.unique(np.stack([lesions.labels[both], found.labels[both]]) - 1, axis=1, return_counts=True)
    lesion, component = pairs  # (pairs,) each
    ious = overlap / (lesions.sizes[lesion] + found.sizes[component] - overlap)
    detected = np.zeros(len(lesions.sizes), bool)
    detected[lesion[ious >= DETECTION_IOU]] = True
    false = np.ones(len(found.sizes), bool)
    false[component] = False
    count = len(masks)
    return (np.bincount(lesions.slice_of, minlength=count),
            np.bincount(lesions.slice_of[detected], minlength=count),
            np.bincount(found.slice_of[false], minlength=count))
