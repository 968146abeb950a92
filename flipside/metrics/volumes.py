"""Lesions of whole scans: 26-connected components of a stack of masks against those of the truth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from flipside.masks.volumes import TOUCHING
from flipside.metrics.components import DETECTION_IOU
from flipside.metrics.method_artifacts import TestSplit


@dataclass(frozen=True)
class VolumeScore:
    """What a stack of masks finds of one scan."""

    lesions: int  # components of the truth
    detected: int  # of these, covered by one marked component with an IoU of at least DETECTION_IOU
    false: int  # marked components that touch no lesion
    dice: float  # lesion-wise; NaN without a lesion
    true_ml: float
    marked_ml: float


@dataclass(frozen=True)
class Stack:
    """Where the slices of one scan are: the slices that the store lacks are left empty."""

    rows: np.ndarray  # (K,) positions among the test slices, from the lowest slice to the highest
    places: np.ndarray  # (K,) their places in the stack, from 0
    voxel_mm3: float

    @property
    def has_gaps(self) -> bool:
        """Whether slices between the lowest and the highest are missing."""
        return len(self.rows) <= int(self.places[-1])

    def fill(self, masks: np.ndarray) -> np.ndarray:
        """(Z,H,W) of the test slices' masks (N,H,W)."""
        whole = np.zeros((int(self.places[-1]) + 1, *masks.shape[1:]), masks.dtype)
        whole[self.places] = masks[self.rows]
        return whole


def find_stacks(test: TestSplit) -> Iterator[Stack]:
    """A stack for each scan with several test slices; none where anomalies were drawn on each slice anew, which are no
    bodies, and none of single pictures."""
    if test.has_clean:
        return
    index = test.store.index.iloc[test.rows].reset_index(drop=True)
    for _, own in index.groupby("scan_id", sort=False):
        own = own.sort_values("z")
        z = own["z"].to_numpy(int)
        spacing_z = float(own["spacing_z_mm"].iloc[0])
        if len(z) > 1 and len(np.unique(z)) == len(z) and np.isfinite(spacing_z) and spacing_z > 0:
            rows = own.index.to_numpy()
            yield Stack(rows, z - z[0], float(test.spacing[rows[0]].prod() * spacing_z))


def score_volume(mask: np.ndarray, truth: np.ndarray, unsure: np.ndarray, voxel_mm3: float) -> VolumeScore:
    """The score of a mask (Z,H,W) 0/1 against the truth (Z,H,W) 0/1.

    unsure (Z,) bool: slices on which nothing is surely false; a component that reaches one of them is not counted as
    false. Lesion-wise Dice as in BraTS 2023 (Saluja et al., github.com/rachitsaluja/BraTS-2023-Metrics): each lesion
    has the Dice of itself with all marked components that touch it, joined, a missed lesion and a false component have
    0, and the score is the mean of them all. Neither are lesions joined by a dilation first nor small ones left out,
    as there, where voxels measure 1 mm.
    """
    lesion_of, lesions = ndimage.label(truth > 0, TOUCHING)
    component_of, components = ndimage.label(mask > 0, TOUCHING)
    lesion_sizes = np.bincount(lesion_of.ravel(), minlength=lesions + 1)[1:]
    sizes = np.bincount(component_of.ravel(), minlength=components + 1)[1:]
    both = (lesion_of > 0) & (component_of > 0)
    pairs, overlap = np.unique(np.stack([lesion_of[both], component_of[both]]) - 1, axis=1, return_counts=True)
    lesion, component = pairs  # (pairs,) each
    ious = overlap / (lesion_sizes[lesion] + sizes[component] - overlap)
    detected = np.unique(lesion[ious >= DETECTION_IOU])
    excused = np.unique(component_of[unsure])
    false = np.setdiff1d(np.arange(components), np.concatenate([component, excused[excused > 0] - 1]))
    common = np.bincount(lesion, weights=overlap, minlength=lesions)  # (L,) voxels of each lesion that are marked
    touching = np.bincount(lesion, weights=sizes[component], minlength=lesions)  # (L,) voxels of what touches it
    dices = 2 * common / (lesion_sizes + touching)
    millilitres = voxel_mm3 / 1000
    return VolumeScore(lesions, len(detected), len(false),
                       float(dices.sum() / (lesions + len(false))) if lesions else float("nan"),
                       float(lesion_sizes.sum()) * millilitres, float(sizes.sum()) * millilitres)
