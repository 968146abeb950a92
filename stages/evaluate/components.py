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
    centres: np.ndarray  # (C,2) centre of gravity: row, column


def find_components(masks: np.ndarray) -> Components:
    """Components of masks (N,H,W) 0/1."""
    labels, count = ndimage.label(np.asarray(masks) > 0, EIGHT_NEIGHBOURS)
    where = np.nonzero(labels)
    number = labels[where] - 1
    sizes = np.bincount(number, minlength=count)
    rows, columns = (np.bincount(number, weights=axis, minlength=count) / sizes for axis in where[1:])
    slice_of = np.empty(count, np.int64)
    slice_of[number] = where[0]
    return Components(labels, slice_of, sizes, np.stack([rows, columns], axis=1))


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
